"""`agentflow dev` in a folder, and commands in the same folder: they find it wherever its port is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentflow.runtime.serve import http_server
from agentflow.terminal.client import KEY_FILE, URL_FILE

from .conftest import Served, run
from .test_main import one_line


@contextmanager
def dev(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The embedded stack on a free port of its own, and where it says that its API is."""
    environment = {**os.environ, "AGENTFLOW_HOME": str(home), "AGENTFLOW_SANDBOX": "process"}
    command = [sys.executable, "-m", "agentflow", "dev", "--port", "0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = next((line for line in process.stdout if line.startswith("API ")), "")
            assert said, "it has not started"
            yield process, said.split()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


async def test_commands_find_the_stack_that_runs_in_their_folder(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    with dev(home) as (_, url):
        assert (home / URL_FILE).read_text() == f"{url}\n"
        assert not url.endswith(":8080")
        assert (await run("runs")).out == "no runs\n"
        environment.setenv("AGENTFLOW_API_URL", "http://127.0.0.1:9")
        one_line(await run("runs"), "http://127.0.0.1:9 does not answer", "agentflow dev")
    assert not (home / URL_FILE).exists(), "what has stopped is not looked for"


async def test_an_address_that_was_left_behind_is_told_as_such(
    environment: pytest.MonkeyPatch, tmp_path: Path, served: Served
) -> None:
    """As where the stack was killed; its port may be somebody else's by now."""
    from starlette.applications import Starlette

    file = tmp_path / "home" / URL_FILE
    file.parent.mkdir()
    environment.setenv("AGENTFLOW_API_KEY", "af_x")
    mend = ("has left in", str(file), "start it again with: agentflow dev, or set AGENTFLOW_API_URL")
    file.write_text("http://127.0.0.1:9\n")
    for command in (("runs",), ("logs", "x", "-f")):
        one_line(await run(*command), "the API at http://127.0.0.1:9 does not answer", *mend)
    async with http_server(Starlette(), "127.0.0.1", 0) as port:
        file.write_text(f"http://127.0.0.1:{port}\n")
        one_line(await run("runs"), "not as AgentFlow does", *mend)
    file.write_text(served.url)
    refused = await run("runs")
    one_line(refused, "the API key is not valid (set AGENTFLOW_API_KEY")
    assert "has left" not in refused.err, "the key is not the one that was left there"
    environment.delenv("AGENTFLOW_API_KEY")
    (file.parent / KEY_FILE).write_text("af_x")
    one_line(await run("runs"), *mend)
    file.unlink()
    environment.setenv("AGENTFLOW_API_URL", served.url)
    assert "has left" not in (await run("runs")).err
