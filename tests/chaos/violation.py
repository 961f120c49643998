"""A violation: which invariant of DESIGN.md, of which run, and what was found instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

INVARIANTS = {
    1: "every accepted run reaches exactly one terminal state, once",
    2: "no acknowledged submission is lost; the same key gives the same run",
    3: "a committed result never changes; no step starts before what it depends on has committed",
    4: "no write from a stale epoch; a cancelled or halted step has no later effect",
    5: "at most one accepted result per call, one that the far side gave",
    6: "outbox = published ⊆ inbox; a wiped JetStream costs latency only",
    7: "spent + held <= limit at every commit; ledger = sum of calls; unknown price: denied",
    8: "replaying a run's history gives the same hashes",
    9: "root running => something is pending",
    10: "a poison event parks with its reason; nothing is dropped silently",
    11: "nothing of one tenant reaches another",
    12: "the audit chain verifies; an edit, deletion, reorder, truncation or rewrite is found",
    13: "after quiescence nothing is leaked",
    14: "timers are never early, by the database's clock",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """``run``: the run's id, where one is concerned."""

    invariant: int
    what: str
    run: Any = None

    def __str__(self) -> str:
        about = f" [run {self.run}]" if self.run else ""
        return f"invariant {self.invariant} ({INVARIANTS[self.invariant]}): {self.what}{about}"
