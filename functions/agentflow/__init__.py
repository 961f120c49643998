"""AgentFlow: multi-agent workflows as CloudEvents that flow through a few small functions."""

__version__ = "0.1.0"
