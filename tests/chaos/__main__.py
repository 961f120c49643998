"""``make chaos SEED=1 N=500``: rounds of faults until N runs have been played; exit 0 when no invariant was violated.

python -m chaos --seed 1 --runs 500        from the folder tests
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from chaos import seams
from chaos.report import Report, Script, summary
from chaos.round import play
from chaos.servers import Servers

PER_ROUND = 400
MEASURED_S = 40.0


def scripts(seed: int, runs: int, form: str) -> list[Script]:
    """The rounds: storms in both forms in turn, and every fourth time faults one at a time, to be measured."""
    rounds = max(3, -(-runs // PER_ROUND))
    sizes = [runs // rounds + (number < runs % rounds) for number in range(rounds)]
    chance = random.Random(seed)
    found = []
    for number, size in enumerate(sizes):
        singly = number % 4 == 2
        kind = form or ("apart", "together")[(number + number // 4) % 2]
        over_s = max(MEASURED_S if singly else 8.0, 20.0 * size / 250)
        every_s = chance.uniform(0.7, 1.5)
        found.append(Script(f"{seed}/{number}", kind, size, over_s=over_s, every_s=every_s, singly=singly))
    return found


async def run(
    seed: int, runs: int, form: str, only_round: int | None, without: frozenset[str], *, keep: bool
) -> int:
    """Play all rounds and report; the exit code."""
    for name in seams.SEAMS:
        seams.find(name)
    home = Path(tempfile.mkdtemp(prefix="agentflow-chaos-"))
    print(f"seed {seed}, {runs} runs, in {home}", flush=True)
    servers = Servers(home)
    began = time.monotonic()
    reports: list[Report] = []
    try:
        await servers.start()
        for number, script in enumerate(scripts(seed, runs, form)):
            if only_round is not None and number != only_round:
                continue
            report = await play(servers, replace(script, without=without), home / f"round-{number}")
            reports.append(report)
            print(f"round {number:>3} " + "\n".join(report.lines()), flush=True)
            if not (report.violations or keep) and report.folder is not None:
                shutil.rmtree(report.folder, ignore_errors=True)
    finally:
        await servers.stop()
    print("\n" + "\n".join(summary(seed, reports, time.monotonic() - began)))
    violations = sum(len(report.violations) for report in reports)
    if violations or keep:
        print(f"logs: {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    print(f"violations: {violations}", flush=True)
    return 1 if violations else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--form", choices=("apart", "together"), default="", help="one form only")
    parser.add_argument(
        "--without", default="", help="faults (functions of chaos.faults) to leave out, separated by commas"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs of rounds without violations, too")
    parser.add_argument("--round", type=int, default=None, help="one round only")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    without = frozenset(given.without.split(","))
    try:
        sys.exit(asyncio.run(run(given.seed, given.runs, given.form, given.round, without, keep=given.keep)))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
