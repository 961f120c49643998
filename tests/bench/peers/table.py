"""What is shown: medians of the rounds, a table for people, and the one JSON line."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from work import Measured

OURS = "agentflow"
FIGURES = ("steps_per_s", "step_p50_ms", "step_p99_ms", "fan100_ms")
TITLES = ("steps/s", "step p50 ms", "step p99 ms", "fan-out 100 ms")


@dataclass
class Rounds:
    """What the rounds gave for one engine; ``failure`` says why there is nothing."""

    measured: list[Measured] = field(default_factory=list)
    failure: str | None = None

    @property
    def medians(self) -> dict[str, float] | None:
        """By figure; None when a round failed or none was done."""
        if self.failure is not None or not self.measured:
            return None
        return {name: statistics.median(getattr(each, name) for each in self.measured) for name in FIGURES}


def best(settings: Sequence[Rounds]) -> Rounds:
    """Of an engine that was measured at several settings, the one with the most steps per second."""
    for rounds in settings:
        if rounds.medians is None:
            return rounds
    return max(settings, key=lambda rounds: (rounds.medians or {})[FIGURES[0]])


def line(results: Mapping[str, Rounds]) -> str:
    """The JSON line: medians by engine and figure, null for an engine that failed."""
    return json.dumps({name: rounds.medians for name, rounds in results.items()})


def table(results: Mapping[str, Rounds]) -> str:
    """Figures as median (lowest to highest), then how many times better ours are, then how each was set."""
    rows = [["", *TITLES]]
    for name, rounds in results.items():
        if rounds.medians is None:
            rows.append([name, f"FAILED: {rounds.failure}"])
        else:
            rows.append([name, *(_spread(rounds, figure) for figure in FIGURES)])
    ours = results[OURS].medians if OURS in results else None
    for name, rounds in results.items():
        if name != OURS and ours and rounds.medians:
            rows.append([f"ours against {name}", *_better(ours, rounds.medians)])
    notes = [
        f"{name} {last.version}: {last.durability}; {last.settings}"
        for name, rounds in results.items()
        for last in rounds.measured[-1:]
    ]
    return "\n".join([*_aligned(rows), "", *notes])


def _spread(rounds: Rounds, figure: str) -> str:
    values = sorted(getattr(each, figure) for each in rounds.measured)
    return f"{statistics.median(values):,g} ({values[0]:,g}-{values[-1]:,g})"


def _better(ours: Mapping[str, float], theirs: Mapping[str, float]) -> list[str]:
    """More steps per second is better, and less of every time."""
    ratios = [ours[FIGURES[0]] / theirs[FIGURES[0]], *(theirs[name] / ours[name] for name in FIGURES[1:])]
    return [f"{ratio:.2f} x" for ratio in ratios]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    whole = [row for row in rows if len(row) == len(rows[0])]  # a failure's text runs on over the columns
    widths = [max(len(row[column]) for row in whole) for column in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    return ["  ".join(cell.ljust(widths[at]) for at, cell in enumerate(row)).rstrip() for row in rows]
