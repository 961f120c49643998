"""``agentflow graph``: a workflow's picture, and a run's with where it is."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from .conftest import HELLO, Command
from .test_looking import hello
from .test_main import one_line
from .test_replaying import REVIEW


async def test_a_workflow_is_drawn(agentflow: Command) -> None:
    drawn = (await agentflow("graph", str(HELLO))).out
    assert drawn.startswith("flowchart TD\n")
    assert '"measure"' in drawn and '"greet"' in drawn


async def test_a_run_is_drawn_with_where_it_is(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "review.yaml").write_text(REVIEW)
    run = (await agentflow("run", str(tmp_path / "review.yaml"), "--detach")).out.strip()
    await agentflow("logs", run)
    drawn = (await agentflow("graph", run)).out
    assert drawn.startswith("stateDiagram-v2\n")
    assert "open --> done : approved [event.data.by == 'ann']" in drawn
    assert "class open active" in drawn
    await agentflow("cancel", run)


async def test_a_picture_is_written_to_a_file(agentflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "hello.svg"
    done = await agentflow("graph", str(HELLO), "--format", "svg", "--output", str(file))
    assert (done.code, done.out) == (0, "")
    assert file.read_text().startswith("<svg ") and ">measure</text>" in file.read_text()
    ET.fromstring(file.read_bytes())
    one_line(await agentflow("graph", str(HELLO), "--output", str(tmp_path)), "cannot be written")


async def test_a_picture_of_a_run_shows_where_it_is_and_what_has_ended(
    agentflow: Command, tmp_path: Path
) -> None:
    (tmp_path / "review.yaml").write_text(REVIEW)
    run = (await agentflow("run", str(tmp_path / "review.yaml"), "--detach")).out.strip()
    await agentflow("logs", run)
    assert groups((await agentflow("graph", run, "--format", "svg")).out)["open"] == "state active"
    await agentflow("cancel", run)
    finished = await hello(agentflow)
    found = groups((await agentflow("graph", finished, "--format", "svg")).out)
    assert (found["measure"], found["greet"]) == ("task done", "task done")


def groups(svg: str) -> dict[str, str]:
    """The class of every box by its title."""
    space = {"": "http://www.w3.org/2000/svg"}
    found = ET.fromstring(svg).findall(".//g[@class]", space)
    return {(each.findtext("title", "", space)).split("\n")[0]: each.attrib["class"] for each in found}


async def test_what_is_neither_is_refused(agentflow: Command) -> None:
    one_line(await agentflow("graph", "nothing"), "a workflow's file, or a run's id")
    one_line(await agentflow("graph", "nothing.yaml"), "there is no such file")
