"""Commands that carry functions start without what only a terminal needs: cold start is part of the product."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentflow
from agentflow.terminal.carrying import plainly_serves

SOURCE = str(Path(agentflow.__file__).parents[1])
STARTED = """
import sys
from agentflow import __main__
from agentflow.terminal import stack

async def carried(*_, **__):
    from agentflow.observe import logs
    from agentflow.runtime import bridge, host, serve
    print(sorted(name for name, module in sys.modules.items() if module and name.split(".")[0] in HEAVY))

HEAVY = {"rich", "boto3", "botocore", "openai", "anthropic", "docker"}
stack.run_serve = stack.run_bridge = carried
sys.argv = ["agentflow", *sys.argv[1:]]
__main__.main()
"""


def loaded(command: str, *more: str) -> str:
    """What of ``HEAVY`` and ``more`` a process that runs this command has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED.replace("HEAVY = {", f"HEAVY = {{*{more!r}, "), *command.split()],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize("command", ["serve plan dispatch", "relay", "bridge"])
def test_what_a_process_that_carries_functions_leaves_out(command: str) -> None:
    assert loaded(command) == "[]"


@pytest.mark.parametrize("command", ["serve dispatch --push", "serve --push run-tool"])
def test_what_containers_run_needs_no_library_for_command_lines(command: str) -> None:
    assert loaded(command, "typer", "yaml", "psycopg_pool") == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("serve plan run-tool", (["plan", "run-tool"], [])),
        ("serve --push api", (["api"], ["push"])),
        ("serve all --relay --replica", (["all"], ["relay", "replica"])),
        ("serve", ([], [])),
        ("serve --help", None),
        ("serve plan --help", None),
        ("serve plan --push=1", None),
        ("serve plan -p", None),
        ("dev --sample", None),
        ("", None),
    ],
)
def test_only_a_plain_serve_goes_past_the_command_line(words: str, said: object) -> None:
    assert plainly_serves(words.split()) == said
