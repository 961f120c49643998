"""``agentflow replay``: a run decided again comes to the same, and what was changed is said by its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Command
from .test_looking import hello
from .test_main import one_line

RECORDINGS = sorted((Path(__file__).parents[1] / "local" / "recordings").glob("*.json"))
REVIEW = """
agentflow: plan/v1
kind: fsm
name: review
limits: {steps: 10}
vars: {note: string}
tasks:
  wait: {kind: wait, for: 1h}
initial: open
states:
  open:
    run: wait
    transitions:
      - {event: approved, if: event.data.by == 'ann', set: {note: event.data.note}, to: done}
      - {event: done, to: late}
  done: {final: success}
  late: {final: failure}
"""


async def test_a_run_comes_to_the_same_again(agentflow: Command) -> None:
    run = await hello(agentflow)
    done = await agentflow("replay", run)
    assert done.code == 0
    assert "decisions of hello@1 came to the same" in done.out
    found = (await agentflow("replay", run, "--json")).json
    assert found | {"lines": 0} == {"run": run, "lines": 0, "same": True, "diverges": None}
    assert found["lines"] >= 4


async def test_what_a_signal_said_is_part_of_the_recording(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "review.yaml").write_text(REVIEW)
    run = (await agentflow("run", str(tmp_path / "review.yaml"), "--detach")).out.strip()
    import httpx

    headers = {
        "authorization": f"Bearer {os.environ['AGENTFLOW_API_KEY']}",
        "content-type": "application/json",
    }
    async with httpx.AsyncClient(base_url=os.environ["AGENTFLOW_API_URL"], headers=headers) as client:
        for said in ({"by": "bob", "note": "no"}, {"by": "ann", "note": "fine"}):
            answer = await client.post(
                f"/v1/runs/{run}/signals/approved",
                json={"data": said},
                headers={"idempotency-key": said["by"]},
            )
            assert answer.status_code == 202, answer.text
    await agentflow("logs", "--follow", run)
    assert (await agentflow("show", run, "--json")).json["output"] == {"note": "fine"}
    done = await agentflow("replay", run)
    assert done.code == 0, done


async def saved(agentflow: Command, folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "hello.json"
    assert (await agentflow("replay", await hello(agentflow), "--save", str(path))).code == 0
    return path, json.loads(path.read_text())


async def test_a_recording_is_replayed_without_the_api(
    agentflow: Command, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    path, _ = await saved(agentflow, tmp_path)
    environment.setenv("AGENTFLOW_API_URL", "http://127.0.0.1:1")
    done = await agentflow("replay", str(path))
    assert done.code == 0 and "came to the same" in done.out


def _result(recording: dict[str, Any]) -> None:
    recording["steps"][0]["output"]["letters"] = 4


def _input(recording: dict[str, Any]) -> None:
    recording["run"]["input"]["name"] = "Bob"


def _missing(recording: dict[str, Any]) -> None:
    del recording["history"][2]


def _status(recording: dict[str, Any]) -> None:
    recording["steps"][1]["status"] = "failed"


def _plan(recording: dict[str, Any]) -> None:
    recording["document"]["limits"]["steps"] += 1


def _end(recording: dict[str, Any]) -> None:
    recording["run"]["output"] = {"greeting": "no"}


def _hash(recording: dict[str, Any]) -> None:
    recording["history"][-1]["hash"] = "00" * 16


CHANGED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "a result": (_result, "step 2 (greet) was given"),
    "the input": (_input, "step 1 (measure) was given"),
    "a line is missing": (_missing, "it is missing: the next one is 4"),
    "how a step ended": (_status, "step 2.1 is succeeded here, and failed in steps"),
    "the workflow": (_plan, "it pinned plan"),
    "what it came to": (_end, "the run came to"),
    "a hash": (_hash, "it comes to another state"),
}


@pytest.mark.parametrize("what", CHANGED)
async def test_where_it_goes_another_way_is_said(agentflow: Command, tmp_path: Path, what: str) -> None:
    change, said = CHANGED[what]
    path, recording = await saved(agentflow, tmp_path)
    change(recording)
    path.write_text(json.dumps(recording))
    done = await agentflow("replay", str(path))
    assert done.code == 1
    assert said in done.out, done.out
    found = await agentflow("replay", str(path), "--json")
    assert found.code == 1 and not found.json["same"] and said.partition(" (")[0] in str(found.json["diverges"])


async def test_what_is_no_recording_is_refused(agentflow: Command, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    one_line(await agentflow("replay", str(path)), "a run's id, or a file")
    path.write_text("{")
    one_line(await agentflow("replay", str(path)), "is not JSON", "--save")
    _, recording = await saved(agentflow, tmp_path)
    recording["steps"][0]["status"] = "fine"
    path.write_text(json.dumps(recording))
    one_line(await agentflow("replay", str(path)), "steps[0].status")
    recording["steps"][0]["status"] = "succeeded"
    recording["history"][1]["data"] = {}
    recording["history"][2]["data"] = {}
    path.write_text(json.dumps(recording))
    assert (await agentflow("replay", str(path))).code == 1
    one_line(await agentflow("replay", "00000000-0000-7000-8000-000000000000"), "no such run")


# What a recording is of, as its document and its history say: a change of any of these meets at least one.
KINDS: dict[str, Callable[[dict[str, Any], set[str]], bool]] = {
    "agent": lambda said, tasks: any("--turn" in task for task in tasks) and any("--stock" in task for task in tasks),
    "child": lambda said, tasks: "order" in tasks and '"kind": "workflow"' in json.dumps(said["document"]),
    "compensate": lambda said, tasks: {"cancel_flight", "cancel_train"} <= tasks,
    "goal": lambda said, tasks: {"planning_propose", "planning_judge", "planning_follow"} <= tasks,
    "history": lambda said, tasks: '"history": "deep"' in json.dumps(said["document"]) and said["run"]["input"] == {},
    "human": lambda said, tasks: "agree" in tasks,
    "map": lambda said, tasks: said["document"].get("root", {}).get("fail_at") == 2,
    "regions": lambda said, tasks: '"regions"' in json.dumps(said["document"]),
    "retry": lambda said, tasks: any(step["attempt"] == 3 for step in said["steps"]),
    "subtree": lambda said, tasks: "trees" in said["document"] and "look" in tasks,
    "try": lambda said, tasks: "release" in tasks,
    "try, cancelled": lambda said, tasks: "close" in tasks and said["run"]["status"] == "cancelled",
}


def test_there_are_recordings_of_the_samples_and_of_every_kind() -> None:
    assert {path.stem.split(".")[0] for path in RECORDINGS} >= {"hello", "incident-triage"}
    said = [json.loads(path.read_text()) for path in RECORDINGS]
    with_tasks = [(each, {step["task"] for step in each["steps"]}) for each in said]
    assert [kind for kind, of in KINDS.items() if not any(of(*each) for each in with_tasks)] == []


REPLAY_ALL = """
import sys
from agentflow.__main__ import main
for path in sys.argv[1:]:
    sys.argv = ["agentflow", "replay", path]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"{path}: exit {end.code}")
"""


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_what_earlier_versions_decided_is_decided_again(seed: str) -> None:
    """In a process of its own, whatever the order of its hashes. When this fails, runs that were begun before break:
    raise IR_VERSION and keep the old meaning, or make a new recording where no run has it yet."""
    command = [sys.executable, "-c", REPLAY_ALL, *map(str, RECORDINGS)]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("came to the same") == len(RECORDINGS)
