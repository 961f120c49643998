"""LLM providers behind one protocol, and a scripted model for offline use."""

from agentflow.models.model import Model, ModelRef, Reply, Request, Usage

__all__ = ["Model", "ModelRef", "Reply", "Request", "Usage"]
