"""The work that every peer does, and what its script prints. Runs in environments of others: standard library only.

A run is ten trivial steps in a row, each needing the result of the one before. Measured are:

- throughput: all runs at once, from the first submission until the last result is back;
- a step's whole time, one run at a time: from the start of one step's function to the start of the next one's;
- a fan-out of 100 steps and their join: from the request of the run until its result is back.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

STEPS = 10
WIDTH = 100
SINGLES, SINGLES_BEFORE = 100, 20  # measured, and before that to warm up
FANS, FANS_BEFORE = 20, 3
JOINED = sum(range(1, WIDTH + 1))  # every branch adds one to its number, from 0 on


def steps_of(runs: int) -> int:
    """How many steps have to be there when a measurement with ``runs`` runs at once is over."""
    return (runs + SINGLES + SINGLES_BEFORE) * STEPS + (FANS + FANS_BEFORE) * WIDTH


@dataclass
class Measured:
    """What one measurement of one engine gave; ``steps_counted`` is the far side's own count."""

    steps_per_s: float
    step_p50_ms: float
    step_p99_ms: float
    fan100_ms: float
    steps_counted: int
    version: str
    durability: str
    settings: str


class Clock:
    """Collects times, run by run."""

    def __init__(self) -> None:
        self._steps: list[float] = []
        self._fans: list[float] = []

    def single(self, starts: Sequence[float]) -> None:
        """One run of ten steps: when each step's function started, in seconds."""
        assert len(starts) == STEPS, f"{len(starts)} steps ran instead of {STEPS}"
        self._steps += [(after - before) * 1000 for before, after in itertools.pairwise(starts)]

    def fan(self, began: float) -> None:
        """One fan-out, which is over now and was requested at ``began`` (``time.perf_counter``)."""
        self._fans.append((time.perf_counter() - began) * 1000)

    def measured(self, runs: int, seconds: float, **more: Any) -> Measured:
        """The figures; what was measured to warm up is left out."""
        steps = sorted(self._steps[-SINGLES * (STEPS - 1) :])
        return Measured(
            steps_per_s=round(runs * STEPS / seconds),
            step_p50_ms=round(statistics.median(steps), 2),
            step_p99_ms=round(steps[int(len(steps) * 0.99)], 2),
            fan100_ms=round(statistics.median(self._fans[-FANS:]), 1),
            **more,
        )


def arguments(text: str | None) -> argparse.ArgumentParser:
    """The options that every peer's script has."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--runs", type=int, default=2000)
    return parser


def emit(measured: Measured) -> None:
    """Print the one line of a peer's script."""
    print(json.dumps(asdict(measured)))
    sys.stdout.flush()
