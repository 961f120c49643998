"""Checking workflow files from the command line: no server is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import HELLO, run
from .test_running import WAITER

PRICED = """
agentflow: plan/v1
kind: bt
name: priced
limits: {steps: 5, usd: 1}
input: {files: list(string)}
tools:
  scan: {kind: python, usd: 0.002, code: "def run(f): return {}"}
tasks:
  look: {kind: tool, use: scan, in: {f: item}, retry: {max: 2}}
root:
  map: look
  over: files
  max: 50
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def file(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return file


async def test_a_valid_file_is_summed_up(environment: Any) -> None:
    good = await run("validate", str(HELLO))
    assert (good.code, good.err) == (0, "")
    assert "hello (bt), 2 tasks" in good.out
    assert "steps: at most 2\n" in good.out
    assert (await run("validate", str(HELLO), "--json")).json["name"] == "hello"


async def test_every_fault_has_a_line_of_its_own_with_its_place(environment: Any, write: Any) -> None:
    bad = write(
        "bad.yaml",
        WAITER.replace("run: idle", "run: idel").replace("event: go, to: ok", "event: go, to: nowhere"),
    )
    ended = await run("validate", bad, str(HELLO), bad + ".none")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert lines[0] == f"{bad} is not valid:"
    assert lines[1].startswith("  error: line 10: states.a.run: unknown task 'idel' (did you mean 'idle'?)")
    assert lines[2].startswith("  error: line 10: states.a.transitions[1].to: unknown state 'nowhere'")
    assert "hello (bt)" in ended.out, "the others are checked all the same"
    assert f"{bad}.none cannot be read" in lines[-1]


async def test_warnings_are_told_and_count_when_they_are_asked_to(environment: Any, write: Any) -> None:
    file = write("priced.yaml", PRICED)
    ended = await run("validate", file)
    assert ended.code == 0
    assert "  steps: at most 50 = min(size(files), 50)\n" in ended.out
    assert "  calls: at most 100 = 2 * min(size(files), 50)\n" in ended.out
    assert "  cost: at most $0.20 = $0.004 * min(size(files), 50)\n" in ended.out
    assert "  warning: line 14: root.max: is 50, but a run starts 5 steps at most" in ended.out
    assert (await run("validate", file, "--strict")).code == 1
    assert (await run("validate", str(HELLO), "--strict")).code == 0


async def test_warnings_of_what_python_has_built_name_lines_too(environment: Any, write: Any) -> None:
    file = write(
        "flow.py",
        "from agentflow.plan import Workflow, task\n"
        "flow = Workflow('spare', steps=3)\n"
        "echo = flow.tool('echo', 'std.echo')\n"
        "spare = flow.tool('spare', 'std.echo')\n"
        "flow.root(task(echo))\n",
    )
    ended = await run("validate", file)
    assert ended.code == 0
    assert f"  warning: tasks.spare: {file}:4: nothing runs the task 'spare'" in ended.out
    said = (await run("validate", file, "--format", "json")).json
    assert [(w["path"], w["line"]) for w in said["warnings"]] == [("tasks.spare", 4)]


async def test_rules_of_the_scripted_model_are_checked_as_such(environment: Any, write: Any) -> None:
    good = write("a.model.yaml", "rules:\n  - {prompt: hello, reply: hi}\n  - {prompt: bye, reply: see you}\n")
    ended = await run("validate", good, "--strict")
    assert (ended.code, ended.out) == (0, f"{good} is valid: 2 rules of the scripted model\n")
    assert (await run("validate", good, "--format", "json")).json["rules"] == 2
    bad = write("b.model.yaml", "rules:\n  - {prompt: hello, reply: hi}\n  - {prompt: '(', reply: '{name}'}\n")
    ended = await run("validate", bad)
    assert ended.code == 1
    assert ended.out.startswith(f"{bad} is not valid:\n  error: line 3: rules[1].prompt: is not a regular expression")
    empty = write("c.model.yaml", "rulez: []\n")
    assert "line 1: rulez" in (await run("validate", empty)).out


async def test_the_samples_pass_strictly(environment: Any) -> None:
    folder = HELLO.parent
    files = sorted(map(str, [*folder.glob("*.yaml"), *folder.glob("*.py")]))
    ended = await run("validate", *files, "--strict", "--no-model-check")
    assert ended.code == 0, ended.out


async def test_for_programs(environment: Any, write: Any) -> None:
    said = (await run("validate", write("priced.yaml", PRICED), "--format", "json")).json
    assert (said["name"], said["kind"], said["problems"]) == ("priced", "bt", [])
    assert said["bounds"]["cost_micro"] == {"most": 200_000, "expression": "4000 * min(size(files), 50)"}
    assert [(w["path"], w["line"], w["code"]) for w in said["warnings"]] == [("root.max", 14, "fuel")]
    ended = await run("validate", write("bad.yaml", PRICED.replace("look\n", "lok\n")), "--format", "json")
    assert ended.code == 1
    assert [(p["path"], p["line"]) for p in ended.json["problems"]] == [("root.map", 12)]
    assert ended.json["bounds"] == {}


async def test_for_github(environment: Any, write: Any) -> None:
    file = write("a,b.yaml", PRICED.replace("root:\n", "rot:\n"))
    ended = await run("validate", file, "--format", "github")
    assert ended.code == 1
    first = ended.out.splitlines()[0]
    place = file.replace(",", "%2C")
    assert first.startswith(f"::error file={place},line=11,title=schema::rot: there is no key 'rot' here")
    torn = write("torn.yaml", "agentflow: plan/v1\nname: [\n")
    ended = await run("validate", torn, "--format", "github")
    assert ended.out.startswith(f"::error file={torn},line=3,title=syntax::")
    assert len(ended.out.splitlines()) == 1
