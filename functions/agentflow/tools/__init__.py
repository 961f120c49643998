"""Tools: what a ``tool`` task calls, built in or shipped with the workflow, behind one call."""

from agentflow.tools.call import ToolCall
from agentflow.tools.runner import Tools

__all__ = ["ToolCall", "Tools"]
