"""Recovery: how long after a fault a worker commits again, and what was left behind is consumed."""

from __future__ import annotations

import bisect
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from chaos.fleet import Fleet, Worker
from chaos.sampler import Behind, Sampler

# kind -> (percentile, seconds), from the issue
GOALS = {"kill": (99, 5.0), "postgres restart": (100, 10.0), "nats wipe": (100, 10.0)}
ALL = frozenset(("plan", "dispatch", "invoke_llm", "run_tool", "account_cost"))  # who consumes messages
BEFORE_S = 1.0  # what ended longer before a blow than this has nothing to do with it


@dataclass(slots=True)
class Span:
    """One fault, from its beginning to its end, by the monotonic clock."""

    began: float
    ended: float = float("inf")


@dataclass(slots=True)
class Blow:
    """What a fault did to one worker, and when."""

    kind: str
    worker: str
    at: float
    span: Span
    behind: Behind | None = None


_span: ContextVar[Span] = ContextVar("span")  # the fault that this task inflicts


class Recovery:
    """Notes blows, and works out from the workers' own commit logs when each was at work again."""

    def __init__(self, fleet: Fleet, sampler: Sampler) -> None:
        self._fleet = fleet
        self._sampler = sampler
        self._spans: list[Span] = []
        self._blows: list[Blow] = []

    def begin(self) -> Span:
        """This task begins to inflict a fault."""
        span = Span(time.monotonic())
        self._spans.append(span)
        _span.set(span)
        return span

    def end(self, span: Span, *, reached: bool) -> None:
        """A fault has been inflicted, or could not be."""
        span.ended = time.monotonic()
        if not reached:
            self._spans.remove(span)

    def struck(self, kind: str, worker: Worker) -> None:
        """A fault befalls a worker now."""
        behind = self._sampler.watch_behind(ALL & {worker.name} if self._fleet.form == "apart" else ALL)
        self._blows.append(Blow(kind, worker.name, time.monotonic(), _span.get(), behind))

    def struck_all(self, kind: str) -> None:
        """A fault befalls what all workers need."""
        now, span, behind = time.monotonic(), _span.get(), self._sampler.watch_behind(ALL)
        names = list(self._fleet.workers)
        self._blows += [Blow(kind, name, now, span, None if at else behind) for at, name in enumerate(names)]

    def times(self) -> dict[str, dict[str, list[float]]]:
        """Seconds by kind: until the struck worker's next commit, of faults that struck alone and of those that
        struck among others; and until what was on its way to it had been consumed, of those that struck alone."""
        found: dict[str, dict[str, list[float]]] = {
            name: defaultdict(list) for name in ("alone", "among", "behind")
        }
        for name, worker in self._fleet.workers.items():
            commits = worker.commits()
            for blow in (blow for blow in self._blows if blow.worker == name):
                place = bisect.bisect_right(commits, blow.at)
                if place == len(commits):
                    continue  # there was nothing left to do
                alone = self._alone(blow, commits[place])
                found["alone" if alone else "among"][blow.kind].append(commits[place] - blow.at)
                if alone and blow.behind is not None and blow.behind.took_s is not None:
                    found["behind"][blow.kind].append(blow.behind.took_s)
        return found

    def _alone(self, blow: Blow, well: float) -> bool:
        """Whether nothing else befell the system shortly before, or until the struck worker was well."""
        since = blow.at - BEFORE_S
        return not any(
            span is not blow.span and span.began < well and span.ended > since for span in self._spans
        )


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
