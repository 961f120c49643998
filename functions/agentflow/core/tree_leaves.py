"""The leaves of a behaviour tree: task, check, succeed, fail."""

from __future__ import annotations

from agentflow.core.moves import Completed, Failed
from agentflow.core.node import FAILURE, RUNNING, SKIPPED, SUCCESS, Node
from agentflow.core.tick import RECALL, Tick
from agentflow.core.turn import reason
from agentflow.core.types import JSON, Mismatch


def task(tick: Tick, node: Node, scope: str) -> int:
    """The state is the step that runs, or how it ended where that is remembered.

    Preconditions are looked at before it starts and, when it is remembered, again: they are its guard.
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is int:
        return _end(tick, node, scope, key) if key == tick.hit else RUNNING
    status = _guards(tick, node, scope)
    if status != RUNNING:
        if held is not None:
            tick.n.pop(key)
        return status
    if held is not None:
        return RECALL[held]
    tick.start(node, scope)
    return RUNNING


def _guards(tick: Tick, node: Node, scope: str) -> int:
    """What the preconditions decide; RUNNING when the task is to run."""
    guard = node.fail_if
    if guard is not None and tick.value(guard, scope, node.path + ".fail_if"):
        tick.why = reason(node.path + ".fail_if", f"`{guard.source}` holds")
        return FAILURE
    guard = node.skip_if
    if guard is not None and tick.value(guard, scope, node.path + ".skip_if"):
        return SKIPPED
    return RUNNING


def _end(tick: Tick, node: Node, scope: str, key: str) -> int:
    """The event has reached its leaf: the task has ended."""
    event = tick.event
    assert event is not None
    assert node.task is not None
    tick.hit = ""
    tick.moved = True
    tick.running.pop(str(event.step))  # type: ignore[union-attr]
    status = FAILURE
    if isinstance(event, Completed):
        try:
            bound = node.task.bind(event.result)
        except Mismatch as fault:
            _explain(tick, node, "bad_result", f"result{fault.where} {fault.message}")
        else:
            status = _judge(tick, node, scope, bound)
    elif isinstance(event, Failed):
        _explain(tick, node, event.code, event.message)
    else:
        _explain(tick, node, "timeout", "nothing came in time")
    return tick.remember(node, key, status)


def _explain(tick: Tick, node: Node, code: str, message: str) -> None:
    assert node.task is not None
    tick.fault = (code, message)
    tick.why = reason(node.path, f"task {node.task.name!r} failed: {code}: {message}")


def _judge(tick: Tick, node: Node, scope: str, bound: dict[str, JSON]) -> int:
    """A result is assigned in any case, and is a success unless ``ok_if`` says no; both see the same values."""
    ok_if = node.ok_if
    ok = ok_if is None or tick.value(ok_if, scope, node.path + ".ok_if", bound)
    if node.sets:
        tick.assign(node.sets, scope, node.path, bound=bound)
    if ok:
        return SUCCESS
    assert ok_if is not None
    tick.why = reason(node.path + ".ok_if", f"`{ok_if.source}` does not hold")
    return FAILURE


def check(tick: Tick, node: Node, scope: str) -> int:
    """Success when the condition holds."""
    condition = node.condition
    assert condition is not None
    if tick.value(condition, scope, node.path + ".if"):
        return SUCCESS
    tick.why = reason(node.path + ".if", f"`{condition.source}` does not hold")
    return FAILURE


def succeed(tick: Tick, node: Node, scope: str) -> int:
    """Success."""
    return SUCCESS


def fail(tick: Tick, node: Node, scope: str) -> int:
    """Failure; what went wrong before stays part of the reason."""
    cause = tick.why.rpartition(", after ")[2]
    tick.why = reason(node.path, f"the plan says fail, after {cause}" if cause else "the plan says fail")
    return FAILURE
