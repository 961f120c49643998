"""LLM providers behind one protocol, and a scripted model for offline use."""

from agentflow.models.model import Call, Model, Reply, Request, Usage

__all__ = ["Call", "Model", "Reply", "Request", "Usage"]
