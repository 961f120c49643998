"""Killed around a call that may be made once only: it is made once at most, and the run says what is known of it."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos.load import Submission
from chaos.report import Script
from chaos.servers import Servers, passable
from chaos.stage import Stage, stage
from chaos.workflows import BY_NAME


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory.mktemp("claims"))
    asyncio.run(servers.start())
    yield servers
    asyncio.run(servers.stop())


async def ended(on: Stage, point: str, action: str) -> tuple[dict[str, Any], int]:
    """A run whose worker meets its fate at that point: its row, and how often the far side was called."""
    (worker,) = on.fleet.workers.values()
    fired = worker.control.fired
    worker.control.arm(point, action)
    tenant = on.tenants[0]
    token = f"{tenant.mark}-{point}-{action}"
    given = {"token": token, "n": 1, "url": f"http://127.0.0.1:{on.far.port}/effect"}
    submission = Submission(tenant, BY_NAME["charged"], token, given)
    await on.load._submit(submission, random.Random(1))
    await on.sampler.until(lambda: worker.control.fired > fired, within_s=20)
    if action == "stop":
        await asyncio.sleep(8.0)
        worker.signal(signal.SIGCONT)
    assert await on.sampler.until(lambda: token in on.sampler.ended_tokens, within_s=60), worker.log.read_text()[-2000:]
    (run,) = await on.servers.rows(on.database, "select * from agentflow.runs where input ->> 'token' = %s", token)
    assert await on.servers.rows(on.database, "select * from agentflow.claims") == []
    assert not on.sampler.violations
    return run, len(on.far.calls.get(f"{token}/charge/0", ()))


KNOWN, UNKNOWN = "nonce", "outcome_unknown"


@pytest.mark.parametrize(
    ("point", "action", "said", "calls"),
    [
        ("claim.before", "kill", KNOWN, 1),  # nobody has claimed it: another life makes the call
        ("claim.after", "kill", UNKNOWN, 0),  # between claim and call
        ("call.before", "kill", UNKNOWN, 0),
        ("call.after", "kill", UNKNOWN, 1),  # between call and record
        ("report.before", "kill", UNKNOWN, 1),
        ("report.after", "kill", KNOWN, 1),
        ("claim.after", "stop", KNOWN, 1),  # it was stopped for longer than its claim holds: it begins anew
    ],
)
async def test_killed_around_the_call(
    servers: Servers, tmp_path: Path, point: str, action: str, said: str, calls: int
) -> None:
    script = Script(f"claims {point}", "one", 1, calm=True, only="charged", trouble=0.0)
    passable(tmp_path / "stage")
    async with stage(servers, script, tmp_path / "stage") as on:
        run, called = await ended(on, point, action)
    assert run["status"] == "succeeded", run["error"]
    assert run["output"]["word"].startswith(said)
    assert called == calls
