"""What a row reports: figures, and goals with the verdict on each. One JSON line per row."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from cpu import machine_s

Goal = dict[str, Any]
Row = dict[str, Any]


def at_most(what: str, measured: float, limit: float, unit: str = "") -> Goal:
    """A goal that is met by ``limit`` or less."""
    return _goal(what, measured, f"<= {limit:g}", unit, measured <= limit)


def at_least(what: str, measured: float, limit: float, unit: str = "") -> Goal:
    """A goal that is met by ``limit`` or more."""
    return _goal(what, measured, f">= {limit:g}", unit, measured >= limit)


def failed(what: str, limit: str, unit: str, why: str) -> Goal:
    """A goal that was missed in another way than by a figure."""
    return {"what": what, "measured": None, "goal": limit, "unit": unit, "met": False, "why": why}


def _goal(what: str, measured: float, limit: str, unit: str, met: bool) -> Goal:
    return {"what": what, "measured": measured, "goal": limit, "unit": unit, "met": met}


def row(name: str, goals: Sequence[Goal], figures: Row) -> Row:
    """A row's JSON object: its figures at the top, beside its name and goals."""
    return {"row": name, "goals": list(goals), **figures}


def main(parser: argparse.ArgumentParser, bench: Callable[[argparse.Namespace], Awaitable[Row]]) -> None:
    """Measure a row as its command line says and print its one line."""
    from agentflow.runtime.loop import run

    args = parser.parse_args()
    began = machine_s()
    content: Row = run(bench(args))  # type: ignore[arg-type]
    worked, idle = (after - before for after, before in zip(machine_s(), began, strict=True))
    ours = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cores = os.cpu_count() or 1
    # Timings taken while the machine does other things are not this program's: say how much it did.
    others = max(0.0, worked - ours) / ((worked + idle) / cores)
    machine = {
        "cores": cores,
        "cores_busy_with_other_work": round(others, 2),
        "python": platform.python_version(),
    }
    print(json.dumps({**content, "machine": machine}), flush=True)


def say(text: str) -> None:
    """Progress, for whoever waits in front of the terminal."""
    print(f"  {text}", file=sys.stderr, flush=True)


def median(values: Sequence[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits)


def quantile(values: Sequence[float], share: float, digits: int = 2) -> float:
    """The smallest value that at least ``share`` of them do not exceed."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], digits)
