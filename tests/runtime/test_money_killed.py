"""Hosts killed around calls that cost money: each attempt is called once at most, and the ledger says what was."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from house import House, all_decided_again, eventually

from agentflow.store.budgets import set_budget

SEED = int(os.environ.get("AGENTFLOW_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
POINTS = ("hold", "claim", "answer", "settled")
RUNS, STEPS, PRICE = 5, 3, 10_000
PATIENCE_S = 180
"""On a busy machine a host may take a minute to come up, and a claim may be over before its call is made."""
CALLS = {
    "agentflow": "plan/v1", "kind": "bt", "name": "calls", "limits": {"steps": 9, "usd": 1.0}, "vars": {"n": "int"},
    "tools": {"far": {"kind": "python", "code": "def run(n): return {'n': n}", "usd": PRICE / 1e6}},
    "tasks": {"far": {"kind": "tool", "use": "far", "in": {"n": "n + 1"}, "out": {"n": "int"}}},
    "root": {"sequence": [{"task": "far", "set": {"n": "result.n"}}] * STEPS},
}  # fmt: skip


class FarSide:
    """Counts the calls of each attempt (run, step, attempt)."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, ...]] = Counter()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        except asyncio.IncompleteReadError:  # its caller was killed before it had asked
            writer.close()
            return
        length = int(head.partition("content-length: ")[2].split()[0])
        self.calls[tuple((await reader.readexactly(length)).decode().split())] += 1
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()


@pytest.fixture
async def far() -> AsyncIterator[FarSide]:
    far = FarSide()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
    far.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        yield far


@asynccontextmanager
async def host(house: House, far: FarSide, point: str, passes: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A host in a process of its own, dead when the block ends."""
    dsns = [house.database.dsn(role) for role in ("agentflow_engine", "agentflow_relay")]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("killed_host.py")), point, str(passes), *dsns, house.nats.url,
        far.url, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), PATIENCE_S) == b"ready\n", "the host has not come up"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def over(house: House) -> bool:
    rows = await house.rows("select count(*) filter (where finished_at is null) as left_over from runs")
    return not rows[0]["left_over"]


async def test_killed_around_a_call_the_ledger_says_what_the_far_side_was_asked(house: House, far: FarSide) -> None:
    chance = random.Random(SEED)
    await house.register(CALLS)
    await set_budget(house.database.admin, house.tenant, "tenant", "total", limit_micro=10**9)
    async with house.host(("api",), relay=False) as door:
        for _ in range(RUNS):
            await house.submit(door, "calls", version=1)
    kills = Counter[str]()
    for point in chance.sample(POINTS, len(POINTS)):
        async with host(house, far, point, chance.randint(1, 3)) as process:
            # However slow the machine is: dead, or there is nothing left that could bring it there so often.
            await eventually(lambda host=process: _dead_or_over(house, host), within_s=PATIENCE_S)
            kills[point] += process.returncode == -9
    async with host(house, far, "never", 0):
        await eventually(lambda: over(house), within_s=PATIENCE_S)
        await eventually(lambda: _quiet(house), within_s=PATIENCE_S)
    print(f"seed {SEED}: killed {dict(kills)}, {sum(far.calls.values())} calls")
    assert sum(kills.values()) >= 2, f"seed {SEED}: {kills}"
    await check(house, far)
    await all_decided_again(house)


async def _dead_or_over(house: House, process: asyncio.subprocess.Process) -> bool:
    return process.returncode is not None or await over(house)


async def _quiet(house: House) -> bool:
    return not await house.rows("select 1 from outbox where consumer <> 'facts'")


async def check(house: House, far: FarSide) -> None:
    seed = f"seed {SEED}"
    failed = await house.rows("select error from runs where status <> 'succeeded'")
    assert failed == [], seed
    assert max(far.calls.values()) == 1, seed
    steps = await house.rows("select run_id, step, attempt, status, error ->> 'code' as code from steps")
    outcome = {(str(row["run_id"]), str(row["step"]), str(row["attempt"])): row for row in steps}
    done = Counter(key[:2] for key, row in outcome.items() if row["status"] == "succeeded")
    assert set(done.values()) == {1}, seed
    assert len(done) == RUNS * STEPS, seed
    entries: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in await house.rows("select * from ledger"):
        entries.setdefault((str(row["run_id"]), str(row["step"]), str(row["attempt"])), {})[row["entry"]] = row
    assert entries.keys() == outcome.keys(), seed
    for key, mine in entries.items():
        # Each attempt that was claimed is paid for in full; one that was lost may not have been made.
        if outcome[key]["code"] == "not_called":
            assert mine["settle"]["amount_micro"] == 0, (seed, key)
            assert key not in far.calls, (seed, key)
            continue
        assert mine.keys() == {"hold", "dispatch", "settle"}, (seed, key)
        assert mine["hold"]["amount_micro"] == mine["settle"]["amount_micro"] == PRICE, (seed, key)
        assert key in far.calls or outcome[key]["code"] == "call_lost", (seed, key)
    assert far.calls.keys() <= entries.keys(), f"{seed}: somebody was called and not paid"
    total = PRICE * sum(row["code"] != "not_called" for row in outcome.values())
    (runs,) = await house.rows("select sum(spent_micro)::bigint as spent, sum(held_micro)::bigint as held from runs")
    (account,) = await house.rows("select spent_micro as spent, held_micro as held from budgets")
    assert runs == account == {"spent": total, "held": 0}, seed
    assert await house.rows("select * from claims") == [], seed
