"""How long the planner takes for one decision: nothing but ``advance``, in this process. Prints one JSON line.

Small plans, a tree and a machine of 100, and a run of 10,000 steps: its last decisions against its first. And how
often compiling the samples' expressions a second time finds them compiled.

    python tests/bench/decisions.py [--steps 10000]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import report
from report import Row, at_most, median, row

from agentflow.core import cel
from agentflow.core.plan import Plan
from agentflow.core.planner import Begin, Completed, PlanState, Start, advance
from agentflow.wire.document import compile_document, load_document_file

SAMPLES = Path(__file__).parents[2] / "local" / "workflows"
TASKS = {"add": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}}}
ADD = {"type": "task", "task": "add", "set": {"n": "result.n"}}
ENDS = {"ok": {"final": "success"}}
EDGE = 500  # decisions at the beginning and at the end of a long run


def _document(kind: str, steps: int, **parts: Any) -> dict[str, Any]:
    limits = {"steps": min(100_000, steps + 10)}
    base = {"agentflow": "plan/v1", "kind": kind, "name": kind, "limits": limits, "vars": {"n": "int"}}
    return base | {"tasks": TASKS} | parts


def _tree(children: int, times: int = 1) -> Plan:
    inner: dict[str, Any] = {"sequence": [ADD] * children}
    root = {"repeat": inner, "max": times} if times > 1 else inner
    return compile_document(_document("bt", children * times, root=root))


def _machine(states: int, visits: int = 1) -> Plan:
    """States in a ring, gone round so many times; every one of them listens to a signal, too."""
    ring: dict[str, Any] = {}
    for i in range(states):
        ways: list[dict[str, Any]] = [{"event": "stop", "to": "ok"}]
        if i + 1 < states:
            ways.append({"event": "done", "set": {"n": "result.n"}, "to": f"s{i + 1}"})
        else:
            ways += [
                {
                    "event": "done",
                    "if": f"result.n < {states * visits}",
                    "set": {"n": "result.n"},
                    "to": "s0",
                },
                {"event": "done", "to": "ok"},
            ]
        ring[f"s{i}"] = {"run": "add", "visits": visits, "transitions": ways}
    return compile_document(_document("fsm", states * visits, initial="s0", states={**ring, **ENDS}))


def decide(plan: Plan, most: int) -> list[float]:
    """Microseconds of every decision of a run, but for the first."""
    moved = advance(plan, None, Begin({}))
    state: PlanState = moved.state
    took: list[float] = []
    for n in range(1, most + 1):
        start = next((each for each in moved.commands if isinstance(each, Start)), None)
        if start is None:
            break
        event = Completed(start.step, {"n": n})
        began = time.perf_counter_ns()
        moved = advance(plan, state, event)
        took.append((time.perf_counter_ns() - began) / 1000)
        state = moved.state
    return took


def hits() -> dict[str, int]:
    """Expressions found compiled and not, when both samples are compiled twice."""
    for _ in range(2):
        for path in sorted(SAMPLES.glob("*.yaml")):
            if not path.name.endswith(".model.yaml"):
                compile_document(load_document_file(path))
    known = cel._compile.cache_info()
    return {"found": known.hits, "compiled": known.misses}


async def bench(args: argparse.Namespace) -> Row:
    compiled = hits()
    figures: dict[str, Any] = {}
    for name, plan in (
        ("tree_10", _tree(10)), ("machine_10", _machine(10)), ("tree_100", _tree(100)), ("machine_100", _machine(100)),
    ):  # fmt: skip
        figures[f"{name}_us"] = median([us for _ in range(30) for us in decide(plan, 1_000)], 1)
    goals = []
    for name, plan in (("tree", _tree(10, args.steps // 10)), ("machine", _machine(10, args.steps // 10))):
        took = decide(plan, args.steps)
        first, last = median(took[:EDGE], 1), median(took[-EDGE:], 1)
        figures |= {f"{name}_{args.steps}_us": last, f"{name}_decisions": len(took)}
        what = f"{name}: a decision after {args.steps:,} steps against the first"
        goals.append(at_most(what, round(last / first, 2), 1.1, "x"))
    share = round(100 * compiled["found"] / max(1, sum(compiled.values())))
    return row("decisions", goals, figures | {"expressions_found_percent": share, "expressions": compiled})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--full", action="store_true", help="the same")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
