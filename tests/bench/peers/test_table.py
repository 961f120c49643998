"""What `make bench-peers` shows is what was measured: medians, ratios the right way round, failures as failures."""

from __future__ import annotations

import fcntl
import json
import sys
from dataclasses import asdict
from pathlib import Path
from textwrap import dedent

import pytest
from engines import Failed, command, measured
from table import Rounds, best, line, table
from work import SINGLES, Clock, Measured, steps_of


def figures(steps_per_s: float, p50: float = 1.0, p99: float = 2.0, fan: float = 20.0) -> Measured:
    return Measured(steps_per_s, p50, p99, fan, steps_of(10), "1.0", "fsync on", "defaults")


def rounds(*speeds: float, **times: float) -> Rounds:
    return Rounds([figures(speed, **times) for speed in speeds])


def script(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_the_line_has_the_median_of_the_rounds_for_each_figure() -> None:
    said = json.loads(line({"agentflow": rounds(900, 100, 300), "dbos": Rounds(failure="no npm")}))
    assert said == {
        "agentflow": {"steps_per_s": 300, "step_p50_ms": 1.0, "step_p99_ms": 2.0, "fan100_ms": 20.0},
        "dbos": None,
    }


def test_a_round_that_failed_leaves_no_figures() -> None:
    half = rounds(100, 100)
    half.failure = "exit status 1"
    assert half.medians is None
    assert "dbos  FAILED: exit status 1" in table({"dbos": half})


def test_a_ratio_above_one_is_ours_being_better() -> None:
    shown = table({"agentflow": rounds(6000, p50=1.0, fan=10.0), "restate": rounds(3000, p50=1.5, fan=5.0)})
    against = next(row for row in shown.splitlines() if row.startswith("ours against restate"))
    assert against.split()[3::2] == ["2.00", "1.50", "1.00", "0.50"]


def test_how_each_was_set_is_shown() -> None:
    assert "restate 1.0: fsync on; defaults" in table({"restate": rounds(1)})


def test_of_several_settings_the_fastest_counts_and_a_failure_counts_first() -> None:
    slow, fast = rounds(100, 100), rounds(90, 200, 200)
    assert best([slow, fast]) is fast
    assert best([fast, slow, failed := Rounds(failure="gone")]) is failed


def test_the_time_of_a_step_is_from_start_to_start() -> None:
    clock = Clock()
    for _ in range(SINGLES):
        clock.single([at * 0.002 for at in range(10)])
    clock.fan(0.0)
    given = clock.measured(10, 2.0, steps_counted=1, version="", durability="", settings="")
    assert (given.step_p50_ms, given.step_p99_ms, given.steps_per_s) == (2.0, 2.0, 50)


def test_a_run_with_a_step_too_few_is_not_measured() -> None:
    with pytest.raises(AssertionError, match="9 steps ran"):
        Clock().single([0.0] * 9)


def test_steps_that_the_far_side_has_not_are_not_believed() -> None:
    answer = asdict(figures(100)) | {"steps_counted": steps_of(10) - 1}
    with pytest.raises(Failed, match="steps ran instead of"):
        measured(answer, steps_of(10))


def test_a_script_that_fails_says_why() -> None:
    with pytest.raises(Failed, match="exit status 1: no such thing"):
        command(script("print('{}'); raise SystemExit('no such thing')"))


def test_what_a_script_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A sleeper that has the script's output open, and a lock: neither waited for nor left running."""
    text = f"""
        import fcntl, subprocess, sys
        file = open({str(tmp_path / "lock")!r}, "w")
        fcntl.flock(file, fcntl.LOCK_EX)
        sleep = "import time; time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", sleep], pass_fds=[file.fileno()])
        print('{{"answer": 1}}')"""
    assert command(script(dedent(text))) == {"answer": 1}
    with open(tmp_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # there is nobody left to hold it
