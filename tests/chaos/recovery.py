"""Recovery: how long after a fault a worker commits again, and what was left behind is consumed."""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chaos.fleet import Fleet, Worker
from chaos.sampler import Sampler

# kind -> seconds, from the issue
GOALS = {"kill": (99, 5.0), "postgres restart": (100, 10.0), "nats wipe": (100, 10.0)}
ALL = frozenset(("plan", "dispatch", "invoke_llm", "run_tool", "account_cost"))  # who consumes messages
ALONE_S = 3.0  # a fault struck alone when nothing else befell the same worker this shortly before or until it was well


@dataclass(slots=True)
class Blow:
    """One fault that befell one worker, at a monotonic time."""

    kind: str
    worker: str
    at: float


class Recovery:
    """Notes blows, and works out from the workers' own commit logs when each was at work again."""

    def __init__(self, fleet: Fleet, sampler: Sampler) -> None:
        self._fleet = fleet
        self._sampler = sampler
        self._blows: list[Blow] = []

    def struck(self, kind: str, worker: Worker) -> None:
        """A fault befalls a worker now."""
        self._blows.append(Blow(kind, worker.name, time.monotonic()))
        self._sampler.watch_behind(kind, ALL & {worker.name} if self._fleet.form == "apart" else ALL)

    def struck_all(self, kind: str) -> None:
        """A fault befalls what all workers need."""
        now = time.monotonic()
        self._blows += [Blow(kind, worker.name, now) for worker in self._fleet.workers.values()]
        self._sampler.watch_behind(kind, ALL)

    def times(self) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
        """Seconds until the next commit, by kind: of blows that struck alone, and of those among others."""
        alone: dict[str, list[float]] = defaultdict(list)
        among: dict[str, list[float]] = defaultdict(list)
        for name, worker in self._fleet.workers.items():
            commits = worker.commits()
            mine = [blow for blow in self._blows if blow.worker == name]
            for blow in mine:
                place = bisect.bisect_right(commits, blow.at)
                if place == len(commits):
                    continue  # there was nothing left to do
                well = commits[place]
                others = [b for b in mine if b is not blow and blow.at - ALONE_S < b.at < well]
                (among if others else alone)[blow.kind].append(well - blow.at)
        return alone, among

    def behind(self) -> dict[str, list[float]]:
        """Seconds until everything that was on its way to the struck functions had been consumed, by kind."""
        found: dict[str, list[float]] = defaultdict(list)
        for behind in self._sampler.behind:
            if behind.took_s is not None:
                found[behind.kind].append(behind.took_s)
        return found


def percentile(values: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def table(times: Mapping[str, list[float]]) -> list[str]:
    """One line per kind: how many, and p50, p99 and the longest in seconds."""
    return [
        f"  {kind:<20} {len(values):>5}   p50 {percentile(values, 50):5.2f}   p99 {percentile(values, 99):5.2f}   "
        f"max {max(values):5.2f}"
        for kind, values in sorted(times.items())
    ]
