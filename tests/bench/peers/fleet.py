"""A throughput measurement shared out over several processes of one engine. Standard library only."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any

PATIENCE_S = 120.0
STOP_S = 10.0

# Called in each process with (what the caller gave, its number, its runs, a barrier). It gets ready, waits at the
# barrier, does its runs, and waits at the barrier again.
Worker = Callable[[Any, int, int, Barrier], None]


@contextmanager
def sharing(worker: Worker, given: Any, runs: int, processes: int) -> Iterator[Barrier]:
    """So many processes that share the runs, and the barrier at which all meet: once to begin, once at the end."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    shares = [runs // processes + (number < runs % processes) for number in range(processes)]
    started = [
        context.Process(target=worker, args=(given, number, share, barrier), daemon=True)
        for number, share in enumerate(shares)
    ]
    try:
        for process in started:
            process.start()
        yield barrier
    except BaseException:
        barrier.abort()
        for process in filter(lambda each: each.pid, started):
            process.join(STOP_S)
        raise
    for process in started:
        process.join(PATIENCE_S)
        if process.exitcode != 0:
            raise RuntimeError(f"a worker ended with {process.exitcode}")


def seconds(worker: Worker, given: Any, runs: int, processes: int) -> float:
    """How long ``runs`` runs take when so many processes share them; getting ready is not part of it."""
    with sharing(worker, given, runs, processes) as barrier:
        barrier.wait(PATIENCE_S)
        began = time.perf_counter()
        barrier.wait(PATIENCE_S)
        return time.perf_counter() - began
