"""``agentflow fmt``: to stdout, into the file, or only asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.terminal import formatting
from agentflow.wire.document import compile_document
from agentflow.wire.document_format import Formatted

from .conftest import HELLO, Command
from .test_main import one_line


async def test_a_file_is_printed_written_and_checked(agentflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "hello.yaml"
    file.write_bytes(HELLO.read_bytes() + b"# the end\n")
    printed = await agentflow("fmt", str(file))
    assert printed.code == 0 and "kind: bt" not in printed.out and printed.out.endswith("# the end\n")
    assert compile_document(printed.out.encode()).hash == compile_document(HELLO.read_bytes()).hash

    asked = await agentflow("fmt", str(file), "--check")
    assert asked.code == 1 and asked.out == "" and "is not formatted" in asked.err
    assert file.read_bytes() == HELLO.read_bytes() + b"# the end\n"

    written = await agentflow("fmt", str(file), "--write")
    assert (written.code, written.out, file.read_text()) == (0, "", printed.out)
    assert (await agentflow("fmt", str(file), "--check")).code == 0
    assert (await agentflow("fmt", str(file), "--check", "--canonical")).code == 1
    assert "\n  type: sequence\n" in (await agentflow("fmt", str(file), "--canonical")).out


async def test_what_does_not_compile_is_left_alone(agentflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(HELLO.read_text().replace("use: count", "use: cuont"))
    before = file.read_bytes()
    refused = await agentflow("fmt", str(file), "--write")
    one_line(refused, "tasks.measure.use")
    assert file.read_bytes() == before


async def test_a_comment_that_would_be_lost_is_said_and_the_file_is_left_alone(
    agentflow: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None is known to get lost; this is what happens when one does.
    monkeypatch.setattr(
        formatting, "format_document", lambda *_, **__: Formatted("name: x\n", ("why", "how"))
    )
    file = tmp_path / "hello.yaml"
    file.write_bytes(HELLO.read_bytes())
    printed = await agentflow("fmt", str(file))
    assert printed.out == "name: x\n" and "2 comments dropped, the first is: why" in printed.err
    one_line(await agentflow("fmt", str(file), "--write"), "2 comments would be lost")
    assert file.read_bytes() == HELLO.read_bytes()


BUILT = """
from agentflow.plan import Workflow, sequence

flow = Workflow("built", steps=1)
echo = flow.tool("echo", "std.echo", in_={"text": "'hi'"})
flow.root(sequence(echo))
"""


async def test_a_workflow_built_in_python_is_a_workflow_file(agentflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "built.py"
    file.write_text(BUILT)
    assert "is valid: built (bt), 1 tasks" in (await agentflow("validate", str(file))).out
    assert '"echo"' in (await agentflow("graph", str(file))).out
    printed = (await agentflow("fmt", str(file))).out
    assert printed.endswith("root: {sequence: [echo]}\n")
    one_line(await agentflow("fmt", str(file), "--write"), "is Python")
    ran = await agentflow("run", str(file), "--json")
    assert ran.code == 0 and ran.json["status"] == "succeeded"


async def test_a_fault_in_it_is_told_by_its_line(agentflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "built.py"
    file.write_text(BUILT.replace("'hi'", "hi"))
    refused = await agentflow("validate", str(file))
    assert refused.code == 1 and f"error: tasks.echo.in.text: {file}:5: `hi`" in refused.out
    one_line(await agentflow("graph", str(file)), f"tasks.echo.in.text: {file}:5: `hi`")
    told = (await agentflow("validate", f"{file}:flow", "--format", "github")).out
    assert told.startswith(f"::error file={file},line=5,")
    file.write_text(BUILT + "print(undefined)\n")
    refused = await agentflow("validate", str(file), str(HELLO))
    assert f"error: {file}: line 7: NameError: name 'undefined' is not defined" in refused.out
    assert "hello (bt)" in refused.out, "the others are checked all the same"


async def test_of_several_one_is_named(agentflow: Command, tmp_path: Path) -> None:
    file = tmp_path / "built.py"
    file.write_text(BUILT + "other = Workflow('other', steps=1)\nother.wait('rest', '1s')\nsame = flow\n")
    assert f"name one: {file}:flow, {file}:other" in (await agentflow("validate", str(file))).out
    assert "is valid: other" in (await agentflow("validate", f"{file}:other")).out
    one_line(await agentflow("graph", f"{file}:none"), "builds no workflow named none")
    one_line(await agentflow("run", str(tmp_path / "nothing.py")), "there is no such file")


async def test_its_tools_may_be_files_beside_it(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "count.py").write_text("def run(text): return {}\n")
    file = tmp_path / "built.py"
    tool = 'count = flow.python("count", file="count.py")\n'
    file.write_text(BUILT.replace("echo = ", tool + "echo = ").replace('"std.echo"', "count"))
    assert (await agentflow("validate", str(file))).code == 0
    (tmp_path / "count.py").unlink()
    assert "error: tools.count.file: " in (await agentflow("validate", str(file))).out
