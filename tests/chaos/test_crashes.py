"""What survives: the embedded process killed at a random moment, and the bus losing everything, under load.

Seeded: AGENTFLOW_CHAOS_SEED chooses the moments (printed with a failure). After every fault the same is asked:
every accepted run ended, once; every step has one result; the ledger is the sum of the usage; nothing is left.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from house import House, eventually

from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import EmbeddedPostgres

SEED = int(os.environ.get("AGENTFLOW_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
RUNS = 200
WORKFLOW = {
    "agentflow": "plan/v1",
    "kind": "bt",
    "name": "load",
    "limits": {"steps": 20, "usd": 0.05},
    "input": {"n": "int"},
    "vars": {"word": "string"},
    "tasks": {
        "tool": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}, "usd": 0.0001},
        "ask": {"kind": "llm", "use": "small", "prompt": "say {n}", "in": {"n": "n"}, "max_tokens": 50},
        "pause": {"kind": "wait", "for": "50ms"},
        "shaky": {
            "kind": "tool", "use": "std.fail", "in": {"times": "1", "retryable": "true"},
            "retry": {"max": 2, "backoff": "20ms"}, "out": {"attempt": "int"},
        },
    },
    "root": {
        "type": "sequence",
        "children": [
            {"type": "task", "task": "tool", "set": {"n": "result.n"}},
            {"type": "parallel", "children": [{"type": "task", "task": "tool"}, {"type": "task", "task": "pause"}]},
            {"type": "task", "task": "ask", "set": {"word": "result.text"}},
            {"type": "task", "task": "shaky"},
            {"type": "task", "task": "tool", "set": {"n": "result.n"}},
        ],
    },
}  # fmt: skip
STEPS = 6  # per run; one of them takes two attempts
SCRIPT = """
rules:
  - prompt: 'say (?P<n>\\d+)'
    reply: 'said {n}'
    latency_ms: 30
"""


class Embedded:
    """The embedded stack as a process of its own, on a home that outlives it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None
        (home / "load.model.yaml").write_text(SCRIPT)

    async def start(self) -> httpx.AsyncClient:
        environment = {
            "PATH": os.environ["PATH"],
            "AGENTFLOW_HOME": str(self.home / "data"),
            "AGENTFLOW_SCRIPT_DIR": str(self.home),
            "AGENTFLOW_SANDBOX": "process",
        }
        command = [sys.executable, "-m", "agentflow", "dev", "--port", "0"]
        with (self.home / "dev.log").open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: ASYNC220
        url = await eventually(self._url)
        key = (self.home / "data" / "api_key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30)

    async def _url(self) -> str | None:
        assert self.process is not None
        said = (self.home / "dev.log").read_text()
        if self.process.poll() is not None:
            pytest.fail(f"seed {SEED}: {said[-3000:]}")
        words = [word for word in said.split() if word.startswith("http://")]
        return words[0] if words else None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
        # A killed process leaves its servers running for the next start; here there is none.
        for server in (EmbeddedPostgres(self.home / "data"), EmbeddedNats(self.home / "data")):
            server.up()
            server.down()


async def test_killed_at_random_moments_every_run_ends_once(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    embedded = Embedded(tmp_path)
    accepted: dict[str, str] = {}
    try:
        api = await embedded.start()
        assert (await api.post("/v1/workflows", json=WORKFLOW)).status_code == 201
        load = asyncio.create_task(submit_all(embedded, [api], accepted))
        for _ in range(2):
            await asyncio.sleep(chance.uniform(0.2, 1.2))
            embedded.kill()
            await api.aclose()
            api = await embedded.start()
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
            load = asyncio.create_task(submit_all(embedded, [api], accepted))
        await load
        assert len(accepted) == RUNS
        server = EmbeddedPostgres(tmp_path / "data")
        dsn = await asyncio.to_thread(dsn_of, server, embedded)
        await eventually(lambda: no_run_open(dsn), within_s=40)
        await check(dsn, set(accepted.values()))
        await api.aclose()
    finally:
        await asyncio.to_thread(embedded.end)


def dsn_of(server: EmbeddedPostgres, embedded: Embedded) -> str:
    """The running server's address: it is in the first lines of its own pid file."""
    lines = (server.data / "postmaster.pid").read_text().splitlines()
    return f"postgresql://postgres@/agentflow?host={lines[4]}&port={lines[3]}"


async def submit_all(embedded: Embedded, clients: list[httpx.AsyncClient], accepted: dict[str, str]) -> None:
    """Submit what is not yet known to be accepted; the same keys again after a crash."""
    api = clients[0]
    gate = asyncio.Semaphore(16)

    async def one(key: str) -> None:
        async with gate:
            body = {"workflow": "load", "input": {"n": int(key)}}
            answer = await api.post("/v1/runs", json=body, headers={"Idempotency-Key": key})
            assert answer.status_code in (200, 202), answer.text
            accepted[key] = answer.json()["id"]

    for result in await asyncio.gather(
        *(one(str(n)) for n in range(RUNS) if str(n) not in accepted), return_exceptions=True
    ):
        if isinstance(result, AssertionError):
            raise result


async def no_run_open(dsn: str) -> bool:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        open_runs = "select count(*) from agentflow.runs where finished_at is null"
        row = await (await conn.execute(open_runs)).fetchone()
        return row == (0,)


async def check(dsn: str, accepted: set[str]) -> None:
    """The invariants, from the database alone."""

    async def one(query: str) -> Any:
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            await conn.execute("set search_path = agentflow")
            row = await (await conn.execute(query)).fetchone()
            assert row is not None
            return row[0] if len(row) == 1 else row

    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        rows = await (
            await conn.execute("select run_id::text, status, output from agentflow.runs")
        ).fetchall()
    assert {run for run, _, _ in rows} == accepted, f"seed {SEED}: accepted and recorded runs differ"
    assert [row for row in rows if row[1] != "succeeded"] == [], f"seed {SEED}"
    assert (
        await one("select count(*) from runs where output ->> 'word' = 'said ' || ((input ->> 'n')::int + 1)")
        == RUNS
    )
    # Each step has one result, and the failed attempt before it where one was scripted.
    results = await one("select count(*) from steps where status = 'succeeded'")
    assert results == RUNS * STEPS, f"seed {SEED}"
    per_step = (
        "select max(n) from (select count(*) n from steps where status = 'succeeded' group by run_id, step) s"
    )
    assert await one(per_step) == 1
    assert await one("select count(*) from steps where status not in ('succeeded', 'failed')") == 0
    # A call that was lost with its process is made again, as another attempt.
    decided = "select count(*) from history where name = 'step.completed' and data->'again' is null"
    assert await one(decided) == RUNS * (STEPS + 1) - RUNS, f"seed {SEED}: a result was decided upon twice"
    # The ledger is the sum of the usage, run by run, and nothing stays held.
    assert await one("select count(*) from runs where held_micro <> 0") == 0
    assert (
        await one(
            """select count(*) from runs r where spent_micro <>
             (select coalesce(sum(amount_micro), 0) from ledger l where l.run_id = r.run_id and entry = 'settle')"""
        )
        == 0
    ), f"seed {SEED}"
    assert await one("select sum(cost_micro) from steps") == await one("select sum(spent_micro) from runs")
    assert await one("select min(spent_micro) from runs") > 300
    assert await one("select count(*) from outbox where consumer <> 'facts'") == 0
    assert await one("select count(*) from timers") == 0
    assert await one("select count(*) from parked") == 0


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_a_wiped_jetstream_loses_nothing(house: House, handoff: bool) -> None:
    chance = random.Random(SEED)
    (house.settings.script_dir / "load.model.yaml").write_text(SCRIPT)
    await house.register(WORKFLOW)
    async with house.host(handoff=handoff) as host:
        runs = [await house.submit(host, "load", {"n": n}) for n in range(RUNS // 2)]
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        await house.nats.wipe_jetstream()
        runs += [await house.submit(host, "load", {"n": n}) for n in range(RUNS // 2, RUNS)]
        await eventually(lambda: no_run_open(house.database.admin), within_s=40)
    await check(house.database.admin, {str(run) for run in runs})
