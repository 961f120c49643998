"""Tools that need no sandbox, because they are ours. What a model that calls them is told of them, and may give them,
is in ``agentflow.core.builtin``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.cel import CelFault, value_of
from agentflow.errors import Rejected, RetryLater
from agentflow.tools.call import ToolCall


def echo(call: ToolCall) -> dict[str, Any]:
    """``std.echo``: its input."""
    return call.input


def fail(call: ToolCall) -> dict[str, Any]:
    """``std.fail``: fails as told, to try out how a workflow takes it.

    ``code`` and ``message``: of the error; ``retryable``: whether another attempt may succeed, and
    ``after_ms`` when; ``times``: only the first so many attempts fail, the next returns ``{attempt}``.
    """
    given = dict(call.input)
    code = _take(given, "code", str, "failed")
    message = _take(given, "message", str, "std.fail was asked to fail")
    retryable = _take(given, "retryable", bool, False)
    after_ms = _take(given, "after_ms", int, 0)
    times = _take(given, "times", int, 2**31)
    if given:
        mend = "std.fail takes code, message, retryable, after_ms and times"
        raise Rejected(f"unknown input {min(given)!r}", code="bad_input", path="in", mend=mend)
    if call.attempt > times:
        return {"attempt": call.attempt}
    if retryable:
        raise RetryLater(message, after=after_ms / 1000, code=code)
    raise Rejected(message, code=code)


def calc(call: ToolCall) -> dict[str, Any]:
    """``std.calc``: the ``value`` of ``expression``, which is CEL without any names, bounded as a plan's are."""
    given = dict(call.input)
    expression = _take(given, "expression", str, "")
    if given:
        raise Rejected(
            f"unknown input {min(given)!r}", code="bad_input", path="in", mend="std.calc takes expression"
        )
    try:
        return {"value": value_of(expression)}
    except CelFault as fault:
        message = f"{fault.message}{f' ({fault.mend})' if fault.mend else ''}"
        raise Rejected(message, code="bad_expression", path="in.expression") from None


BUILTINS: Mapping[str, Callable[[ToolCall], dict[str, Any]]] = {
    "std.calc": calc, "std.echo": echo, "std.fail": fail,
}  # fmt: skip


def _take(given: dict[str, Any], name: str, kind: type, default: Any) -> Any:
    value = given.pop(name, default)
    if type(value) is not kind:
        raise Rejected(f"must be {kind.__name__}", code="bad_input", path=f"in.{name}")
    return value
