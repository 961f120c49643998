"""Spans of the runtime: one per decision and one per external call, all in the run's trace.

Only traces that are sampled and exported cost anything; what goes out then carries the span it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from agentflow.core.message import Message
from agentflow.observe import traces

_NO_SPAN: AbstractContextManager[None] = nullcontext()


def deciding(function: str, message: Message) -> AbstractContextManager[str | None]:
    """A span around a pure decision; gives the traceparent of what follows from it, None when not recorded."""
    if not traces.recording(message.trace):
        return _NO_SPAN
    return _span(f"{function} {message.name}", message, "internal", {})


@contextmanager
def performing(function: str, request: Message) -> Iterator[traces.Span | None]:
    """A span around an external call, with the attributes of OpenTelemetry's GenAI conventions."""
    if not traces.recording(request.trace):
        yield None
        return
    asked = request.data
    attributes: dict[str, Any] = _ids(request)
    if function == "invoke_llm":
        name = f"chat {asked['model']['model']}"
        attributes |= traces.genai("chat", asked["model"]["provider"], asked["model"]["model"])
    else:
        name = f"execute_tool {asked['tool']}"
        attributes |= {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": asked["tool"]}
    with traces.start_span(name, request.trace, attributes, kind="client") as span:
        yield span


@contextmanager
def _span(name: str, message: Message, kind: traces.Kind, attributes: dict[str, Any]) -> Iterator[str]:
    with traces.start_span(name, message.trace, attributes | _ids(message), kind=kind) as span:
        yield span.traceparent


def _ids(message: Message) -> dict[str, Any]:
    return {
        "agentflow.run": str(message.run),
        "agentflow.step": message.data.get("step"),
        "agentflow.task": message.data.get("task"),
        "cloudevents.event_id": message.id,
        "cloudevents.event_type": message.name,
    }
