"""What `make bench` shows is what was measured: figures against goals the right way round, failures as failures; and
the rows still run on the engine as it is, in forms so small that their figures say nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import idle
import pytest
import report
import rows
import scale

HERE = Path(__file__).parent


def test_a_goal_is_met_on_its_own_side_of_the_limit() -> None:
    assert report.at_most("late", 50, 50)["met"]
    assert not report.at_most("late", 50.1, 50)["met"]
    assert report.at_least("kept", 1.0, 1.0)["met"]
    assert not report.at_least("kept", 0.99, 1.0)["met"]


def test_a_quantile_leaves_no_more_than_its_share_above() -> None:
    values = [float(n) for n in range(1000, 0, -1)]
    assert report.quantile(values, 0.5) == 501
    assert report.quantile(values, 0.99) == 991
    assert report.quantile([7.0], 0.99) == 7


def by_count(*throughputs: int, busy: float) -> dict[int, dict[str, Any]]:
    counts = [1, 2, 4]
    each = [{"steps_per_s": steps, "cores_busy": busy} for steps in throughputs]
    return dict(zip(counts, each, strict=True))


@pytest.mark.parametrize(
    ("throughputs", "busy", "met"),
    [
        ((1000, 1600, 2000), 0.6, True),
        ((1000, 900, 2000), 0.6, False),  # cores had nothing to do, and yet it fell
        ((1000, 900, 950), 0.95, True),  # the cores were full
        ((1000, 900, 300), 0.95, False),  # a collapse is one whatever the cores do
    ],
)
def test_throughput_must_rise_until_the_cores_are_full(
    throughputs: tuple[int, ...], busy: float, met: bool
) -> None:
    assert scale.verdict("x", by_count(*throughputs, busy=busy))["met"] == met


def test_statements_in_the_log_of_the_server_are_counted_once_each() -> None:
    said = (
        "2026-01-01 UTC [7] LOG:  statement: set enable_seqscan = off\n"
        "2026-01-01 UTC [7] LOG:  execute _pg3_1: select ceil(extract(epoch from fire_at)) from t\n"
        "\tfrom agentflow.timers order by fire_at limit 1\n"
        "2026-01-01 UTC [7] LOG:  execute _pg3_1: select ceil(extract(epoch from fire_at)) from t\n"
        "2026-01-01 UTC [7] LOG:  checkpoint complete\n"
    )
    assert sorted(idle.statements(said).values()) == [1, 2]


def test_the_table_shows_what_is_missed_and_what_could_not_be_measured() -> None:
    found: list[dict[str, Any]] = [
        {"row": "steps", "goals": [report.at_most("p50", 1.4, 1, "ms")]},
        {"row": "waiting", "goals": [report.failed("over HTTP", "<= 1.2", "x", "a run has failed")]},
        {"row": "cold", "goals": [], "error": "exit code 1, see above"},
    ]
    text = rows.lines(found)
    assert [line.split()[-1] for line in text[2:]] == ["NO", "NO", "MEASURED"]
    assert "1.4 ms" in text[2] and "failed" in text[3] and "exit code 1" in text[4]


def test_a_row_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "rows.py"), "--rows", "steps,speed"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "'speed'" in done.stderr


@pytest.mark.parametrize(
    ("command", "figures"),
    [
        (
            "steps.py --runs 20 --single 3",
            {"steps_per_s", "step_p50_ms", "step_p99_ms", "python_cpu_us_per_step"},
        ),
        (
            "steps.py --runs 21 --single 3 --processes 2",
            {"steps_per_s", "step_p50_ms", "step_p99_ms", "python_cpu_us_per_step"},
        ),
        ("fanout.py --runs 2 --widths 20,40", {"fan20_ms", "ms_per_child"}),
        (
            "timers.py --pending 100 --rate 20 --seconds 2 --burst 20",
            {"late_p50_ms", "late_p99_ms", "at_once_20"},
        ),
        ("budgets.py --runs 20 --workers 1", {"plain_per_s", "without_per_s", "with_per_s", "exhausted_per_s"}),
        ("decisions.py --steps 200", {"tree_10_us", "machine_100_us", "expressions_found_percent"}),
    ],
)
def test_a_row_measures_the_engine_as_it_is(command: str, figures: set[str]) -> None:
    script, *options = command.split()
    done = subprocess.run(
        [sys.executable, str(HERE / script), *options], capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert figures <= found.keys()
    assert found["goals"] and all(goal["measured"] is not None for goal in found["goals"])
    assert "cores_busy_with_other_work" in found["machine"]
