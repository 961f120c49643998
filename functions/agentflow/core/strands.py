"""The course of one tick: the root and the catches that run by themselves are strands, each ticked until nothing moves.

A strand that cannot go on, because an expression has no value or a limit is reached, is taken back to where it was
before this pass and halted. When it is the root that is how the run ends; a catch just ends, as if it had failed. A run
ends when its root has ended and no catch runs any more. In a tree without tries the run ends where it stands.
"""

from __future__ import annotations

from agentflow.core import catching
from agentflow.core.entries import Entries
from agentflow.core.moves import Advance
from agentflow.core.node import FAILURE, RUNNING
from agentflow.core.tick import Tick
from agentflow.core.turn import MAX_REASON, Ends, reason

CANCELLED = "cancelled"
"""What the reason begins with when somebody has asked for the end."""


def run(tick: Tick) -> Advance:
    """Tick to quiescence and say what follows."""
    try:
        if tick.strand:
            _catch(tick, tick.strand)
        else:
            _root(tick)
        _fresh(tick)
        _review(tick)
    except Ends as ends:
        return tick.turn.end([int(step) for step in tick.running.names()], ends)
    return _close(tick)


def cancel(tick: Tick, why: str) -> Advance | None:
    """Halt the root, and let the catches run; None when there are none, or they run for that already."""
    if tick.outcome is not None and tick.outcome[1].startswith(CANCELLED):
        return None
    _end_root(tick, reason(CANCELLED, why) if why else CANCELLED)
    if not tick.loose:
        return None
    _fresh(tick)
    _review(tick)
    return _close(tick)


def _root(tick: Tick) -> None:
    mark = tick.mark() if tick.tree.catches else None
    try:
        status = tick.tick(tick.tree.root, "")
    except Ends as ends:
        if mark is None:
            raise
        tick.undo(mark, "")
        _end_root(tick, ends.reason)
        return
    if status != RUNNING:
        tick.outcome = [status != FAILURE, tick.why if status == FAILURE else ""]


def _end_root(tick: Tick, why: str) -> None:
    if tick.outcome is None:
        tick.abandon(tick.tree.root, "")
    elif not tick.outcome[0]:
        why = f"{why}, after {tick.outcome[1]}"[:MAX_REASON]
    tick.outcome = [False, why]


def _catch(tick: Tick, number: str) -> None:
    """Tick a catch that runs by itself; what fails in it is not why the run fails."""
    why = tick.why
    status = catching.go_on(tick, number)
    tick.why = why
    if status != RUNNING:
        catching.end(tick, number)


def _fresh(tick: Tick) -> None:
    """Catches that were let go in this tick; they may let go others. One may be where the event goes."""
    if tick.hit and tick.event is not None:
        tick.deliver(tick.hit, tick.event)
        _catch(tick, tick.strand)
    while tick.fresh:
        _catch(tick, tick.fresh.pop(0))


def _review(tick: Tick) -> None:
    """Variables have changed: conditions are looked at again, everywhere, until nothing moves."""
    root, nodes = tick.tree.root, tick.tree.nodes
    if not (tick.assigned and root.live):
        return
    tick.reviewing = True
    while True:
        tick.moved = False
        if tick.outcome is None:
            _root(tick)
            _fresh(tick)
        for number in sorted(tick.loose.names(), key=int):
            held = tick.loose.get(number)
            if held is not None and not held["at"] and nodes[held["catch"]].live:
                _catch(tick, number)
        _fresh(tick)
        if not tick.moved:
            return


def _close(tick: Tick) -> Advance:
    """The state that is left, and the commands."""
    turn = tick.turn
    if tick.outcome is not None and not tick.loose:
        return turn.end([], Ends(*tick.outcome))
    for key, step in turn.numbered().items():
        tick.n[key] = step
        tick.running[str(step)] = key
    last, alarms = tick.timer, turn.timed(tick.timer)
    for key, timer in alarms.items():
        tick.n[key] = [timer, *tick.n.get(key)[1:]]
        tick.timers[str(timer)] = key
    cursor: dict[str, object] = {"n": tick.n.close(), "run": tick.running.close(), "items": tick.items.close()}
    moved: dict[str, object] = {"n": tick.n.changed, "run": tick.running.changed, "why": tick.why}
    if tick.why:
        cursor["why"] = tick.why
    if tick.items.changed:
        moved["items"] = dict(tick.items.close())  # whole, as runs have recorded it that began before there were others
    tables, values = _rare(tick, last + len(alarms))
    for name, table in tables.items():
        cursor[name], moved[name] = table.close(), table.changed
    return turn.close(cursor | values, moved | values, last)


def _rare(tick: Tick, timer: int) -> tuple[dict[str, Entries], dict[str, object]]:
    """The tables and values that only some trees need."""
    tables: dict[str, Entries] = {}
    values: dict[str, object] = {}
    if tick.tree.timed:
        tables["timers"] = tick.timers
        values["timer"] = timer
    if tick.tree.scoped:
        tables["own"] = tick.instances.entries
        values["owned"] = tick.instances.last
    if tick.tree.catches:
        tables["loose"] = tick.loose
        values["loosed"] = tick.loosed
    if tick.outcome is not None:
        values["outcome"] = tick.outcome
    return tables, values
