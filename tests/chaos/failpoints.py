"""What a worker wraps around the product: failpoints, a clock that can be moved, and a log of its commits."""

from __future__ import annotations

import datetime as dates
import functools
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from chaos import seams
from chaos.control import POINTS, Control

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
WAITS: dict[str, Any] = {"fact_ms": 3_000, "hold_grace_ms": 1_500, "backoff_s": (0.1, 0.2, 0.4, 0.8)}
"""What is shorter than in production, so that a round need not wait a minute for it."""

COMMIT = struct.Struct("d")


def install(control: Control, commits: int) -> None:
    """Wrap every boundary. Each commit's monotonic time is appended to the descriptor ``commits``."""
    boundaries = dict.fromkeys(point.partition(".")[0] for point in POINTS)
    for name in boundaries:
        for seam in (
            ("commit", "save") if name == "commit" else (name,)
        ):  # a batch is written in one of two ways
            seams.replace(seam, functools.partial(_guarded, name, control, commits))
    for name, value in WAITS.items():
        seams.replace(name, functools.partial(_instead, value))


def _instead(value: Any, original: Any) -> Any:
    return value


def _guarded(name: str, control: Control, commits: int, original: Callable[..., Any]) -> Callable[..., Any]:
    before = _index(f"{name}.before")
    after = _index(f"{name}.after")
    logged = name in ("commit", "relay")

    @functools.wraps(original)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            _pass(control, before)
        result = await original(*args, **kwargs)
        if logged:
            os.write(commits, COMMIT.pack(time.monotonic()))
        if after is not None:
            _pass(control, after)
        return result

    return guarded


def _index(point: str) -> int | None:
    return POINTS.index(point) if point in POINTS else None


def _pass(control: Control, point: int) -> None:
    action = control.passes(point)
    if action is not None:
        os.kill(os.getpid(), SIGNALS[action])
        if action == "kill":  # delivered before kill returns; should it not be, nothing more may happen here
            signal.pause()


def move_clock(control: Control) -> None:
    """Make this process's wall clock wrong by ``control.clock_ms``. Timers of the event loop go on as they are,
    as they would: they follow the monotonic clock. Modules that are imported later keep the true clock."""
    real_time, real_ns = time.time, time.time_ns
    time.time = lambda: real_time() + control.clock_ms / 1000
    time.time_ns = lambda: real_ns() + control.clock_ms * 1_000_000
    real = dates.datetime

    class Alike(type):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, real)

    class Moved(dates.datetime, metaclass=Alike):
        @classmethod
        def now(cls, tz: dates.tzinfo | None = None) -> dates.datetime:  # type: ignore[override]
            return real.now(tz) + dates.timedelta(milliseconds=control.clock_ms)

    for name, module in list(sys.modules.items()):
        if name.startswith("agentflow.") and getattr(module, "datetime", None) is real:
            module.datetime = Moved  # type: ignore[attr-defined]
