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
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from chaos import seams
from chaos.recovery import GOALS, percentile, table
from chaos.round import Report, Script, play
from chaos.servers import Servers
from chaos.violation import NOT_BUILT

PER_ROUND = 250
SHOWN = 20
LATE_S = 15.0


def scripts(seed: int, runs: int, form: str) -> list[Script]:
    """The rounds: the two forms in turn, the first of each form calm."""
    rounds = max(2, -(-runs // PER_ROUND))
    sizes = [runs // rounds + (number < runs % rounds) for number in range(rounds)]
    chance = random.Random(seed)
    found = []
    for number, size in enumerate(sizes):
        kind = form or ("apart", "together")[number % 2]
        over_s = max(8.0, 20.0 * size / PER_ROUND)
        found.append(Script(f"{seed}/{number}", kind, size, over_s=over_s, every_s=chance.uniform(0.7, 1.5)))
    return found


async def run(seed: int, runs: int, form: str, only_round: int | None, without: frozenset[str], *, keep: bool) -> int:
    """Play all rounds and report; the exit code."""
    for name in seams.SEAMS:
        seams.find(name)
    home = Path(tempfile.mkdtemp(prefix="agentflow-chaos-"))
    home.chmod(0o711)
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
            say_round(number, report)
            if not (report.violations or keep) and report.folder is not None:
                shutil.rmtree(report.folder, ignore_errors=True)
    finally:
        await servers.stop()
    violations = say_all(seed, reports, time.monotonic() - began)
    if violations or keep:
        print(f"logs: {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    print(f"violations: {violations}", flush=True)
    return 1 if violations else 0


def say_round(number: int, report: Report) -> None:
    """One line, and the violations."""
    script, count = report.script, report.counts
    print(
        f"round {number:>3} {script.form:<8} {count['runs']:>4} runs {count['steps']:>5} steps {sum(report.faults.values()):>3} "
        f"faults, at rest after {report.rest_s:4.1f} s, {report.took_s:5.1f} s in all, violations {len(report.violations)}",
        flush=True,
    )
    if report.rest_s > LATE_S:
        print("  came to rest late; what was done:\n    " + "\n    ".join(report.story + report.late))
    if not report.violations:
        return
    if report.rest_s <= LATE_S:
        print(f"  seed {script.seed} ({script.form}); what was done:\n    " + "\n    ".join(report.story))
    for violation in report.violations[:SHOWN]:
        print(f"  {violation}")
    for run_id, lines in list(report.histories.items())[:3]:
        print(f"  run {run_id}:\n    " + "\n    ".join(lines))


def say_all(seed: int, reports: list[Report], took_s: float) -> int:
    """Faults by kind, recovery times and totals; the number of violations."""
    faults: Counter[str] = Counter()
    together: Counter[str] = Counter()
    count: Counter[str] = Counter()
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in ("alone", "among", "behind")}
    for report in reports:
        faults += report.faults
        together += report.together
        count += report.counts
        for name, merged in times.items():
            for kind, values in getattr(report, name).items():
                merged[kind] += values
    print(f"\nseed {seed}: {took_s:.0f} s; " + ", ".join(f"{name} {n}" for name, n in sorted(count.items())))
    print("faults struck " + ", ".join(f"{how}: {n}" for how, n in together.most_common()))
    print("\n".join(f"  {kind:<32} {n:>5}" for kind, n in sorted(faults.items())))
    titles = {
        "alone": "seconds from a fault to the struck worker's next commit, faults that struck it alone",
        "among": "the same, where another fault struck the same worker before it was well",
        "behind": "seconds until all that was on its way to the struck functions was consumed",
    }
    for name, merged in times.items():
        if merged:
            print("\n".join([titles[name], *table(merged)]))
    for kind, (percent, most) in GOALS.items():
        if values := times["alone"].get(kind):
            reached = percentile(values, percent)
            print(f"goal {kind}: p{percent} <= {most:g} s: {reached:.2f} s ({'met' if reached <= most else 'MISSED'})")
    for invariant, why in NOT_BUILT.items():
        print(f"invariant {invariant} is not checked: {why}")
    return sum(len(report.violations) for report in reports)


def main() -> None:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--form", choices=("apart", "together"), default="", help="one form only")
    parser.add_argument("--without", default="", help="functions of chaos.faults to leave out, separated by commas")
    parser.add_argument("--keep", action="store_true", help="keep the logs of rounds without violations, too")
    parser.add_argument("--round", type=int, default=None, help="one round only")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(asyncio.run(run(given.seed, given.runs, given.form, given.round, frozenset(given.without.split(",")), keep=given.keep)))


if __name__ == "__main__":
    main()
