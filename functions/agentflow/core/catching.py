"""Catches: what a try does when its body has failed or is halted.

Each time one starts it has a number and a scope of its own, so the same catch may run several times side by side. Its
try waits for it (``at``: the try's key) or it has been let go and runs by itself. ``own`` is the instance whose
variables it sees, ``item`` that of the map around: both stay with it when those places are over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.core.node import FAILURE, Node
from agentflow.core.turn import Ends

if TYPE_CHECKING:
    from agentflow.core.tick import Tick


def begin(tick: Tick, node: Node, scope: str, at: str) -> str:
    """The number of a catch of the try ``node`` that starts."""
    tick.loosed += 1
    number = str(tick.loosed)
    held: dict[str, Any] = {"catch": node.children[-1].index, "at": at, **tick.local(scope)}
    own = tick.instance(scope)
    if own:
        held["own"] = own
        tick.instances.retain(own)
    tick.loose[number] = held
    return number


def go_on(tick: Tick, number: str) -> int:
    """Its status now. One that cannot go on, because an expression has no value or a limit is reached, has failed."""
    node, scope = tick.tree.nodes[tick.loose.get(number)["catch"]], f"~{number}/"
    mark = tick.mark()
    try:
        return tick.tick(node, scope)
    except Ends:
        tick.undo(mark, number)
        tick.abandon(node, scope)
        return FAILURE


def let_go(tick: Tick, number: str) -> None:
    """Its try does not wait for it any more."""
    tick.loose[number] = {**tick.loose.get(number), "at": ""}


def end(tick: Tick, number: str) -> None:
    """It has ended."""
    held = tick.loose.pop(number)
    tick.forget(tick.tree.nodes[held["catch"]], f"~{number}/")
    if "own" in held:
        tick.instances.release(held["own"])
