"""What a round is to be, what came of it, and both in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from chaos.recovery import GOALS, percentile, table
from chaos.violation import Violation

STOP_S = 10.0  # longer than a request is left alone before it is sent again
SHOWN = 20
LATE_S = 15.0
TITLES = {
    "alone": "seconds from a fault to the struck worker's next commit, where nothing else befell the system",
    "among": "the same, among other faults",
    "behind": "seconds until all that was on its way to the struck functions was consumed, nothing else befalling",
}


@dataclass(slots=True)
class Script:
    """What a round is to be. ``calm``: no faults. ``rest_s``: how long it may take to come to rest."""

    seed: str
    form: str
    runs: int
    in_flight: int = 80
    over_s: float = 15.0
    calm: bool = False
    every_s: float = 1.2
    singly: bool = False  # one fault at a time, so that recovery can be measured
    stop_s: float = STOP_S
    rest_s: float = 120.0
    bug: str = ""
    only: str = ""
    trouble: float = 0.3
    poison: int = 5
    without: frozenset[str] = frozenset()  # faults to leave out, by the names of their functions


@dataclass(slots=True)
class Report:
    """What came of it."""

    script: Script
    violations: list[Violation] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    together: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)
    times: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # recovery, see Recovery.times
    counts: Counter[str] = field(default_factory=Counter)
    rest_s: float = 0.0
    late: list[str] = field(default_factory=list)  # what was still under way, every ten seconds
    took_s: float = 0.0
    folder: Path | None = None
    histories: dict[str, list[str]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """One line; and the violations with all that may explain them."""
        count, script = self.counts, self.script
        said = [
            f"{script.form:<8} {'singly' if script.singly else 'storm '} {count['runs']:>4} runs "
            f"{count['steps']:>5} steps "
            f"{sum(self.faults.values()):>3} faults, at rest after {self.rest_s:4.1f} s, "
            f"{self.took_s:5.1f} s in all, violations {len(self.violations)}"
        ]
        if self.violations or self.rest_s > LATE_S:
            said += [
                f"  seed {script.seed}, what was done:",
                *(f"    {line}" for line in self.story + self.late),
            ]
        said += [f"  {violation}" for violation in self.violations[:SHOWN]]
        for run_id, history in list(self.histories.items())[:3]:
            said += [f"  run {run_id}:", *(f"    {line}" for line in history)]
        return said


def summary(seed: int, reports: list[Report], took_s: float) -> list[str]:
    """Faults by kind, recovery times, goals and totals of all rounds."""
    faults: Counter[str] = Counter()
    together: Counter[str] = Counter()
    count: Counter[str] = Counter()
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in TITLES}
    for report in reports:
        faults += report.faults
        together += report.together
        count += report.counts
        for name, merged in times.items():
            for kind, values in report.times.get(name, {}).items():
                merged[kind] += values
    said = [f"seed {seed}: {took_s:.0f} s; " + ", ".join(f"{name} {n}" for name, n in sorted(count.items()))]
    said.append("faults struck " + ", ".join(f"{how}: {n}" for how, n in together.most_common()))
    said += [f"  {kind:<32} {n:>5}" for kind, n in sorted(faults.items())]
    for name, merged in times.items():
        if merged:
            said += [TITLES[name], *table(merged)]
    for kind, (percent, most) in GOALS.items():
        if values := times["alone"].get(kind):
            reached = percentile(values, percent)
            said.append(
                f"goal {kind}: p{percent} <= {most:g} s: {reached:.2f} s ({'met' if reached <= most else 'MISSED'})"
            )
    return said
