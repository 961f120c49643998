"""Ours and its peers, the same work, in turn: a table, and as the last line one JSON object.

    make bench-peers PEERS="[--rounds 3] [--runs 2000] [--only restate,dbos] [--cache .bench-peers]"

Exit status 1 when a peer could not be installed, started or measured to its end; its figures are then null.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from cpu import machine_s
from engines import Engine, Failed, engines
from install import Absent
from table import OURS, Rounds, best, line, table

CALM = 0.05
SETTLE_S = 20.0
ROOT = Path(__file__).parents[3]


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, _end)
    chosen = [engine for engine in engines() if engine.name in {OURS, *(given.only or [engine.name])}]
    results = [(engine, Rounds()) for engine in chosen]
    _say(f"{os.cpu_count()} cores; fsync of 4 KB takes {_fsync_ms():.2f} ms; {given.rounds} rounds")
    for engine, rounds in results:
        try:
            engine.prepare(given.cache)
        except Absent as absent:
            rounds.failure = str(absent)
            _say(f"{engine.name}: FAILED: {absent}")
    for number in range(1, given.rounds + 1):
        for engine, rounds in results:
            _measure(engine, rounds, given.runs, f"round {number}")
    by_name: dict[str, list[Rounds]] = {}
    for engine, rounds in results:
        by_name.setdefault(engine.name, []).append(rounds)
    shown = {name: best(settings) for name, settings in by_name.items()}
    print(table(shown))
    print(line(shown))
    return int(any(rounds.medians is None for rounds in shown.values()))


def _measure(engine: Engine, rounds: Rounds, runs: int, title: str) -> None:
    if rounds.failure is not None:
        return
    busy = _settle()
    began = time.monotonic()
    try:
        measured = engine.measure(runs)
    except Failed as failed:
        rounds.failure = str(failed)
        _say(f"{title}, {engine.name}: FAILED: {failed}")
        return
    rounds.measured.append(measured)
    _say(
        f"{title}, {engine.name}: {measured.steps_per_s:,g} steps/s, step p50 {measured.step_p50_ms:g} ms, "
        f"p99 {measured.step_p99_ms:g} ms, fan-out {measured.fan100_ms:g} ms "
        f"({time.monotonic() - began:.0f} s; cores busy before: {busy:.0%})"
    )


def _settle() -> float:
    """Wait until what the engine before has left to be written is written, and the machine has nothing else to do,
    if it comes to that. Gives the share of the cores that is busy all the same."""
    os.sync()
    until = time.monotonic() + SETTLE_S
    while True:
        worked, idle = machine_s()
        time.sleep(1.0)
        worked, idle = (after - before for after, before in zip(machine_s(), (worked, idle), strict=True))
        busy = worked / (worked + idle)
        if busy < CALM or time.monotonic() > until:
            return busy


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/peers", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--only", type=_names, help="peers, by name and with commas; ours is always measured")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bench-peers", help="where peers are installed")
    given = parser.parse_args()
    given.cache = given.cache.absolute()
    return given


def _names(text: str) -> list[str]:
    known = list(dict.fromkeys(engine.name for engine in engines()))
    for name in text.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return text.split(",")


def _fsync_ms() -> float:
    """How long one takes where the data of all will be: zero would mean that durability costs nobody anything."""
    took = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(50):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _end(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
