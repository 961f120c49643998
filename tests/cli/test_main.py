"""The frame: quick to start, errors in one line with the mend, the right exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agentflow import __version__

from .conftest import Ended, run

COMMANDS = [
    "dev",
    "serve",
    "relay",
    "bridge",
    "migrate",
    "validate",
    "run",
    "runs",
    "show",
    "logs",
    "cancel",
    "pause",
    "resume",
    "tasks",
    "answer",
    "publish",
    "parked",
    "tenant",
    "key",
]


def one_line(ended: Ended, *parts: str) -> None:
    assert ended.code == 1, ended
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line, line
    assert "Traceback" not in ended.err


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys, agentflow.cli\n"
        "heavy = {'httpx', 'rich.live', 'psycopg', 'nats', 'openai', 'docker', 'boto3', 'pydantic', 'starlette',"
        " 'structlog', 'opentelemetry', 'prometheus_client', 'cel_expr_python', 'asyncio', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_command_lists_what_it_can() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "agentflow", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)


def test_the_version_is_said_without_anything_heavy() -> None:
    code = (
        "import sys; from agentflow import __main__\nsys.argv = ['agentflow', '--version']\n"
        "try:\n    __main__.main()\n"
        "except SystemExit as end:\n"
        "    heavy = {'httpx', 'psycopg', 'pydantic', 'starlette', 'asyncio', 'rich.live'} & set(sys.modules)\n"
        "    print(end.code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"agentflow {__version__}", "0 []"]
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["version"] == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("runs", "--limit", "0"),
        ("run",),
        ("show",),
        ("logs", "--frob"),
        ("parked", "frob"),
        ("key",),
    ],
)
async def test_wrong_usage_is_exit_code_2(
    environment: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    ended = await run(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err


async def test_without_a_key_one_is_told_how_to_get_one(environment: pytest.MonkeyPatch) -> None:
    one_line(await run("runs"), "no API key", "AGENTFLOW_API_KEY", "agentflow dev")


async def test_an_api_that_does_not_answer_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AGENTFLOW_API_KEY", "af_x")
    environment.setenv("AGENTFLOW_API_URL", "http://127.0.0.1:9")
    one_line(await run("runs"), "http://127.0.0.1:9 does not answer", "agentflow dev")
    one_line(await run("logs", "x", "-f"), "does not answer")
    environment.setenv("AGENTFLOW_API_URL", "ftp://x")
    one_line(await run("runs"), "not an http or https URL")


async def test_something_else_at_that_address_is_recognised(environment: pytest.MonkeyPatch) -> None:
    from starlette.applications import Starlette

    from agentflow.runtime.serve import http_server

    environment.setenv("AGENTFLOW_API_KEY", "af_x")
    async with http_server(Starlette(), "127.0.0.1", 0) as port:
        environment.setenv("AGENTFLOW_API_URL", f"http://127.0.0.1:{port}")
        one_line(await run("runs"), "answered 404, but not as AgentFlow does", "AGENTFLOW_API_URL")


async def test_a_wrong_setting_is_named(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AGENTFLOW_HTTP_PORT", "eighty")
    one_line(await run("runs"), "AGENTFLOW_HTTP_PORT", "must be a number")


async def test_errors_are_json_for_machines(environment: pytest.MonkeyPatch) -> None:
    ended = await run("runs", "--json")
    assert (ended.code, ended.out) == (1, "")
    document = json.loads(ended.err)
    assert document["code"] == "no_key"
    assert document["errors"][0]["mend"]


async def test_the_key_of_the_embedded_stack_is_found_in_its_home(
    environment: pytest.MonkeyPatch, tmp_path: Path, served: object, key: str
) -> None:
    environment.setenv("AGENTFLOW_API_URL", served.url)  # type: ignore[attr-defined]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "api_key").write_text(key + "\n")
    ended = await run("runs")
    assert (ended.code, ended.out.strip()) == (0, "no runs")
