"""Replay, as the checker asks for it: where a stored run went another way is a violation of an invariant."""

from __future__ import annotations

import orjson

from agentflow.core.plan import Plan
from agentflow.store import replay
from agentflow.store.changes import dump
from chaos.statements import Row
from chaos.violation import Violation

INVARIANTS = {replay.HISTORY: 8, replay.RESULT: 3, replay.HALTED: 4}


class Replay(replay.Replay):
    """One run, decided again line by line. ``violations`` says where the stored run went another way."""

    def __init__(self, run: Row, plan: Plan, steps: list[Row]) -> None:
        self.violations: list[Violation] = []
        self._row = run
        super().__init__(plan, run["input"], {(row["step"], row["attempt"]): row for row in steps})

    def check(self, lines: list[Row]) -> list[Violation]:
        """Decide every line again; stops at the first that differs."""
        found = self.run(lines)
        if found is not None:
            self._violated(INVARIANTS[found.about], str(found))
        else:
            self._compare_ends()
        return self.violations

    def _compare_ends(self) -> None:
        """The end of the history is the state of the run."""
        if self.status != self._row["status"]:
            self._violated(8, f"its history ends {self.status}, the run is {self._row['status']}")
        if self.epoch != self._row["epoch"]:
            self._violated(4, f"its history comes to epoch {self.epoch}, the run is at {self._row['epoch']}")
        if self.status == "succeeded" and self.output != self._row["output"]:
            self._violated(8, f"its history comes to {self.output}, the run to {self._row['output']}")
        stored = self._row["state"] or {}
        kept = [stored.get(name) for name in ("vars", "cursor", "undo", "agents")]
        if self.state is not None and kept != [
            orjson.loads(dump(part) or b"null")
            for part in (self.state.vars, self.state.cursor, self.state.undo, self.state.agents)
        ]:
            self._violated(8, f"its history comes to {self.state}, the run's state is {stored}")

    def _violated(self, invariant: int, what: str) -> None:
        self.violations.append(Violation(invariant, what, self._row["run_id"]))
