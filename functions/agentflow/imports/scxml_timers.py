"""Timers beside an SCXML machine, for what it sends itself with a delay that no state can count."""

from __future__ import annotations

from typing import Any

from agentflow.imports.block import FALSE
from agentflow.imports.findings import duration
from agentflow.imports.scxml_content import timer_flag
from agentflow.imports.scxml_sends import Sends
from agentflow.imports.scxml_ways import Ways
from agentflow.imports.syntax import Binary, Literal, Name
from agentflow.imports.writing import Said

Table = dict[str, Any]


def with_timers(made: Table, initial: str | list[str], sends: Sends, ways: Ways) -> tuple[Table, str | list[str]]:
    """The machine in a region of its own, and a region for each send that needs a timer."""
    states = sends.states
    fresh = states.fresh
    whole, main = fresh("machine"), fresh("main")
    ends = [state.name for state in states.machine.children if state.kind == "final"]
    if initial in ends:
        return made, initial
    inside = {name: entry for name, entry in made.items() if "in" not in entry and name not in ends}
    regions = [main]
    table: Table = {whole: {"regions": regions}, main: {"in": whole, "initial": initial}}
    for name, entry in made.items():
        table[name] = {"in": main, **entry} if name in inside else entry
    for number, send in enumerate(sends.timers, 1):
        begin, stop = timer_flag(sends, send, "send"), timer_flag(sends, send, "cancel")
        region, off, on = (fresh(f"timer-{number}{what}") for what in ("", "-off", "-on"))
        at = send.element
        less = Said(Binary("-", Name(begin), Literal(1)), at)
        none = {begin: Said(Literal(0), at), stop: Said(FALSE, at)}
        stopped = Said(Name(stop), at, True)
        regions.append(region)
        ways.idle.add(off)
        table[region] = {"in": whole, "initial": off}
        table[off] = {
            "in": region,
            "transitions": [
                {"if": stopped, "set": none},
                {"if": Said(Binary(">", Name(begin), Literal(0)), at, True), "set": {begin: less}, "to": on},
            ],
        }
        table[on] = {
            "in": region,
            "transitions": [
                {"if": stopped, "set": none, "to": off},
                {"after": duration(send.ms), "raise": [ways.due(send)], "to": off},
            ],
        }
    table[whole]["transitions"] = [{"event": "done", "set": ways.ignoring(Literal("done"))}]
    return table, whole
