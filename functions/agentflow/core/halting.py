"""Halts: what runs below a node stops, and what it remembers is forgotten. Inner nodes are halted before outer ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agentflow.core import catching
from agentflow.core.node import REMEMBERED, SKIPPED, TIMED, Node
from agentflow.core.turn import Ends

if TYPE_CHECKING:
    from agentflow.core.tick import Tick


def halt(tick: Tick, node: Node, scope: str) -> None:
    """Stop what runs below ``node`` and forget what is remembered there; not that a ``once`` has run, nor where a
    sequence with memory goes on."""
    key = scope + node.key
    conditions = node.conditions
    ran = conditions is not None and tick.n.pop(key + "!") is True
    drop(tick, node, scope)
    if ran and conditions is not None and conditions.on_halt:
        try:
            tick.assign(conditions.on_halt, scope, node.path, "on_halt")
        except Ends:
            if not tick.ending:  # the run's end, or the catch's, has its reason already
                raise


def drop(tick: Tick, node: Node, scope: str) -> None:
    """Stop what runs in ``node`` and forget what is remembered there, but not whether it runs, or how it has ended."""
    _HALT.get(node.kind, _any)(tick, node, scope, scope + node.key)


def _any(tick: Tick, node: Node, scope: str, key: str) -> None:
    held = tick.n.pop(key)
    if held.__class__ is list and node.kind in TIMED:
        tick.clear(key, held)
    if held.__class__ is list and node.memory:
        tick.n[key + "m"] = held[0] or None
    if held.__class__ is not str and (held is not None or node.keep or node.kind in ("invert", "force")):
        for child in node.children:
            halt(tick, child, scope)


def _task(tick: Tick, node: Node, scope: str, key: str) -> None:
    held = tick.n.pop(key)
    if held.__class__ is int:
        tick.halt_step(key, held)


def _once(tick: Tick, node: Node, scope: str, key: str) -> None:
    held = tick.n.get(key)
    if held.__class__ is list:
        tick.n.pop(key)
        halt(tick, node.children[0], scope)
    elif held == REMEMBERED[SKIPPED]:
        tick.n.pop(key)


def _map(tick: Tick, node: Node, scope: str, key: str) -> None:
    held = tick.n.pop(key)
    if held.__class__ is list:
        end_items(tick, node, key, held[0])


def _subtree(tick: Tick, node: Node, scope: str, key: str) -> None:
    held = tick.n.get(key)
    if held is not None:
        halt(tick, node.children[0], key + "/")  # while its variables are still there
        tick.n.pop(key)
        tick.instances.release(held[1])


def _try(tick: Tick, node: Node, scope: str, key: str) -> None:
    """The body is halted, and the catch runs by itself from now on."""
    held = tick.n.pop(key)
    if held.__class__ is not list:
        return
    tick.moved = True
    if held[0] == len(node.children) - 1:
        catching.let_go(tick, held[1])
        return
    halt(tick, node.children[held[0]], scope)
    tick.fresh.append(catching.begin(tick, node, scope, ""))


_HALT: dict[str, Callable[[Tick, Node, str, str], None]] = {
    "task": _task,
    "once": _once,
    "map": _map,
    "subtree": _subtree,
    "try": _try,
}


def end_items(tick: Tick, node: Node, key: str, count: int) -> None:
    """The map ``key`` is over: what still runs for its first ``count`` items is halted."""
    for item in range(count):
        halt(tick, node.children[0], f"{key}.{item}/")
        tick.forget(node.children[0], f"{key}.{item}/")
    tick.items.pop(key)
