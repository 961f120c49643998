"""The benchmark: every row of what must be reached, each in a process of its own, a table, and one JSON line.

    python tests/bench/rows.py [--rows steps,timers] [--full]

Exit code 0 when every row was measured, whether its goals are met or not; 1 when one could not be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROWS = ("steps", "fanout", "waiting", "flat", "scale", "idle", "cold", "timers", "fairness", "decisions", "budgets",
        "bridge")  # fmt: skip
HERE = Path(__file__).parent
LONGEST_S = {False: 300, True: 7200}


def measure(name: str, *, full: bool) -> dict[str, Any]:
    """A row's JSON object; one with ``error`` when it could not be measured."""
    command = [sys.executable, str(HERE / f"{name}.py"), *(["--full"] if full else [])]
    print(f"{name} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONGEST_S[full])
    except subprocess.TimeoutExpired:
        return {"row": name, "goals": [], "error": f"took longer than {LONGEST_S[full]} s"}
    if done.returncode != 0:
        return {"row": name, "goals": [], "error": f"exit code {done.returncode}, see above"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"took_s": round(time.monotonic() - began)}


def lines(found: list[dict[str, Any]]) -> list[str]:
    """The table, for people."""
    cells = [("row", "what", "measured", "goal", "met?")]
    for each in found:
        for goal in each["goals"]:
            unit = f" {goal['unit']}" if goal["unit"] else ""
            measured = "failed" if goal["measured"] is None else f"{goal['measured']:g}{unit}"
            cells.append(
                (each["row"], goal["what"], measured, goal["goal"] + unit, "yes" if goal["met"] else "NO")
            )
        if "error" in each:
            cells.append((each["row"], each["error"], "", "", "NOT MEASURED"))
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return [text[0], "-" * max(map(len, text)), *text[1:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default=",".join(ROWS), help=f"which, of {','.join(ROWS)}")
    parser.add_argument(
        "--full", action="store_true", help="the long forms, too: the millionth run takes an hour"
    )
    args = parser.parse_args()
    names = args.rows.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}: there are {', '.join(ROWS)}")
    found = [measure(name, full=args.full) for name in names]
    print(*lines(found), sep="\n")
    figures = next((each for each in found if each["row"] == "steps"), None)
    if figures and "error" not in figures:
        print(f"throughput: {figures['steps_per_s']} steps/s (its goal is a ratio: make bench-peers)")
    busy = [each["machine"]["cores_busy_with_other_work"] for each in found if "machine" in each]
    if busy and max(busy) > 0.1:
        print(
            f"other work kept up to {max(busy):g} cores busy meanwhile: timings are worse than this program's"
        )
    print(json.dumps({each["row"]: each for each in found}))
    return 1 if any("error" in each for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
