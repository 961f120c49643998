"""Where a fork begins: a run's history, decided again up to the decision that started a step.

Decided again, not trusted: a state that this version would not have come to is nothing to go on from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from agentflow.core import fork
from agentflow.core.fork import Fork
from agentflow.core.moves import PlanEvent, SetTimer
from agentflow.core.plan import Plan
from agentflow.errors import Conflict
from agentflow.store.changes import dump
from agentflow.store.replay import HANDLERS, Replay, Row

JSON = Any


class Forking:
    """The search for the decision that started step ``at`` of a run, page by page of its history.

    ``run``: its id; ``given``: its input; ``reused``: (run, last step) of the runs whose results it reused.
    """

    def __init__(
        self, run: str, plan: Plan, given: Row, at: int, reused: Iterable[tuple[str, int]] = ()
    ) -> None:
        self._run = run
        self._at = at
        self._given = given
        self._reused = tuple(reused)
        self._results: dict[tuple[int, int], Row] = {}
        self._replay = Replay(plan, given, self._results)
        self.lines = 0
        self.older = False
        """The step was started before this run's own history: by the run it is a fork of."""

    def read(self, lines: Iterable[Row], results: Iterable[Row], sets: Mapping[str, JSON]) -> Fork | None:
        """Go on by some lines, with the results that they name; the fork, once its line is among them.

        ``Conflict`` where this version decides otherwise than is recorded.
        """
        self._results.clear()
        self._results.update({(row["step"], row["attempt"]): row for row in results})
        for line in lines:
            self.lines += 1
            if self._at in started(line):
                return self._begin(line, dict(sets))
            if not self._replay.line({**line, "hash": bytes.fromhex(line["hash"])}):
                raise self._diverged()
            if line["name"] == fork.ENTRY and self._at <= steps_before(line):
                self.older = True
                return None
        return None

    def _begin(self, line: Row, sets: dict[str, JSON]) -> Fork:
        data = line["data"]
        if line["name"] == fork.ENTRY:
            # It was open where this run began: the same place again.
            found = fork.read(data, self._given)
            return found._replace(run=self._run, at=self._at, sets={**found.sets, **sets})
        replay = self._replay
        state = replay.state
        event: PlanEvent | None = next(HANDLERS[line["name"]](replay, data), None)
        if event is None:
            raise self._diverged()
        steps = state.steps if state else 0
        found = Fork(
            run=self._run,
            at=self._at,
            sets=sets,
            state=state,
            event=event,
            open=tuple(replay.open.values()),
            timers=tuple(SetTimer(timer, ms) for timer, (_, ms) in replay.timers.items()),
            cancelled=replay.cancelled,
            reused=((self._run, steps), *self._reused) if steps else (),
        )
        # As a store gives it back: no maps that share their entries with the replay's.
        return fork.read(orjson.loads(dump(found.line()) or b""), self._given)

    def _diverged(self) -> Conflict:
        found = self._replay.found
        said = (
            f"this version decides the run's history otherwise: {found}" if found else "its history has a gap"
        )
        return Conflict(said, code="diverges")


def started(line: Row) -> list[int]:
    """The steps that a line of history started."""
    return [each["step"] for each in line["data"].get("started", ())]


def steps_before(line: Row) -> int:
    """How many steps there were before a forked run began."""
    state = line["data"][fork.BEGIN]["state"]
    return int(state["steps"]) if state else 0


def named(lines: Iterable[Row]) -> list[int]:
    """The steps whose rows it takes to decide these lines again."""
    steps = {step for line in lines for step in started(line)}
    steps |= {line["data"]["step"] for line in lines if line["data"].get("step")}
    return sorted(steps)
