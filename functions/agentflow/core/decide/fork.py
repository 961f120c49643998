"""How a fork begins: where the other run was, with all that was open there started anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core import fork
from agentflow.core.decide.turn import Turn
from agentflow.core.planner import PlanEvent

JSON = Any


def begin(turn: Turn, forked: Mapping[str, JSON], given: Mapping[str, JSON]) -> list[PlanEvent]:
    """Decide anew what started the step that the fork is before; returns the refusals as new events.

    Steps and timers that were open get their full time and number of attempts. Their numbers stay, as the planner's
    state knows them by these.
    """
    from_there = fork.read(forked, given)
    turn.run = turn.run.but(forked=from_there.origin, cancel_reason=from_there.cancelled)
    turn.note(fork.ENTRY, forked)
    turn.rest_on(from_there.state, from_there.base)
    refused = turn.obey(from_there.event, from_there.sets)
    if not turn.run.terminal:
        refused += turn.carry_out(from_there.again(turn.commands))
    return refused
