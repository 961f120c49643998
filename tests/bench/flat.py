"""Flat cost: a step late in a long run costs what an early one does, and the millionth run what the first does.

How each is measured is said in long_runs.py and many_runs.py: against each other, in turns. 50,000 runs are there by
default, 1,000,000 with --full.

    python tests/bench/flat.py [--steps 10000] [--pairs 4] [--runs 50000] [--turns 5] [--full]
"""

from __future__ import annotations

import argparse

import report
from long_runs import long_runs
from many_runs import many_runs
from report import Row, at_most, row

GOAL = 1.1
FULL_RUNS = 1_000_000


async def bench(args: argparse.Namespace) -> Row:
    long = await long_runs(args)
    many = await many_runs(FULL_RUNS if args.full else args.runs, args.turns)
    count = f"{many['runs_there']:,}"
    goals = [
        at_most(f"step {args.steps:,} of a run against step 10, wall", long["ms_ratio"], GOAL, "x"),
        at_most(
            f"step {args.steps:,} of a run against step 10, Python CPU", long["python_us_ratio"], GOAL, "x"
        ),
        at_most(f"runs after {count} against the first, all at once", many["ratio"], GOAL, "x"),
        at_most(f"runs after {count} against the first, one at a time", many["single_ratio"], GOAL, "x"),
    ]
    return row("flat", goals, {"long": long, "many": many})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--measured", type=int, default=300, help="steps at the end that are measured")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--runs", type=int, default=50_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--full", action="store_true", help=f"{FULL_RUNS:,} runs are there")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
