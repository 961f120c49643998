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
