"""Checks of walls and leftovers: tenants see nothing of each other, and nothing stays behind (invariants 11, 13)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx

from chaos.books import Books, Round
from chaos.fleet import Fleet
from chaos.statements import Statements
from chaos.violation import Violation

MOST_CONNECTIONS = 20  # of one worker: the engine's, the API's and the relay's together
IDLE_S = 3.0
PROBE_LENGTH = 8  # of the name of the file that tempfile writes to see whether it can


async def check_rows(sql: Statements, around: Round) -> AsyncIterator[Violation]:
    """11: no row of one tenant is about another's run, or holds another's data."""
    for table in await sql.rows("run_tables"):
        for row in await sql.rows("other_runs_rows", table=table["name"]):
            yield Violation(
                11,
                f"{table['name']} has a row of tenant {row['tenant_id']} about another's run",
                row["run_id"],
            )
    for table in await sql.rows("tenant_tables"):
        for tenant in around.tenants:
            mark = f"%{tenant.mark}%"
            for row in await sql.rows("other_tenants_rows", table=table["name"], mark=mark, tenant=tenant.id):
                what = f"{table['name']} of tenant {row['tenant_id']} holds data of {tenant.id}: {row['row']}"
                yield Violation(11, what)


def check_logs(around: Round) -> Iterator[Violation]:
    """11: no log line that is about one tenant holds another's data."""
    for worker in around.fleet.workers.values():
        for line in worker.log.read_text(errors="replace").splitlines() if worker.log.exists() else ():
            for tenant in around.tenants:
                others = (other for other in around.tenants if other is not tenant)
                if tenant.mark in line and any(str(other.id) in line for other in others):
                    yield Violation(11, f"a log line of {worker.name} holds two tenants' data: {line[:300]}")


async def check_doors(books: Books) -> AsyncIterator[Violation]:
    """11: the API shows a tenant its own runs only, and metrics name nobody."""
    around = books.round
    apis = [worker for worker in around.fleet.carrying() if worker.has_api]
    async with httpx.AsyncClient(base_url=apis[0].url, timeout=20) as client:
        for tenant in around.tenants:
            headers = {"Authorization": f"Bearer {tenant.key}"}
            strange = next((run for run in books.tables["runs"] if run["tenant_id"] != tenant.id), None)
            if strange is not None:
                for path in ("", "/steps", "/events"):
                    answer = await client.get(f"/v1/runs/{strange['run_id']}{path}", headers=headers)
                    if answer.status_code != 404:
                        what = f"GET {answer.request.url.path} ({answer.status_code}) shows {tenant.id} another's run"
                        yield Violation(11, what, strange["run_id"])
            listed = (await client.get("/v1/runs?limit=100", headers=headers)).text
            for other in around.tenants:
                if other is not tenant and any(
                    str(run["run_id"]) in listed
                    for run in books.tables["runs"]
                    if run["tenant_id"] == other.id
                ):
                    yield Violation(11, f"GET /v1/runs shows tenant {tenant.id} runs of {other.id}")
    async with httpx.AsyncClient(timeout=20) as client:
        for worker in around.fleet.carrying():
            metrics = (await client.get(f"{worker.url}/metrics")).text
            for tenant in around.tenants:
                if tenant.mark in metrics:
                    yield Violation(11, f"the metrics of {worker.name} hold data of tenant {tenant.id}")


async def check_at_rest(sql: Statements, fleet: Fleet) -> AsyncIterator[Violation]:
    """13: after quiescence no transaction is open, and no worker has more connections than it may."""
    for row in await sql.rows("activity"):
        if (row["state"] or "").startswith("idle in transaction") and row["seconds"] > IDLE_S:
            what = f"{row['usename']} has a transaction open for {row['seconds']:.0f} s: {row['query']}"
            yield Violation(13, what)
    for worker in fleet.carrying():
        if worker.postgres.connections > MOST_CONNECTIONS:
            yield Violation(13, f"{worker.name} has {worker.postgres.connections} connections to PostgreSQL")


async def check_leftovers(sql: Statements, fleet: Fleet) -> AsyncIterator[Violation]:
    """13: when all workers have ended, no connection, lock, process or file of theirs is left."""
    for _ in range(20):
        left = await sql.rows("activity")
        if not left:
            break
        await asyncio.sleep(0.1)
    if locks := (await sql.rows("locks"))[0]["n"]:
        yield Violation(13, f"{locks} advisory locks are still held")
    for row in left:
        yield Violation(13, f"a connection of {row['usename']} is left: {row['query']}")
    for name, argv in _processes_in(fleet.temp):
        yield Violation(13, f"process {name} is left: {argv}")
    for path in sorted(fleet.temp.iterdir()):
        if path.is_file() and path.read_bytes() in (b"", b"blat") and len(path.name) == PROBE_LENGTH:
            continue  # Python's own, removed at once, unless the process is killed just then
        yield Violation(13, f"a temporary file is left: {path.name}")
    for worker in fleet.workers.values():
        for code in worker.exits:
            if code != 0:
                yield Violation(
                    13, f"{worker.name} ended with {code} after SIGTERM: {_last_line(worker.log)}"
                )
        for code in worker.surprises:
            yield Violation(13, f"{worker.name} ended by itself with {code}: {_last_line(worker.log)}")


def _processes_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Processes that work below a folder, or were started with it in their environment."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            here = os.readlink(f"/proc/{pid}/cwd").startswith(str(folder))
            named = str(folder).encode() in Path(f"/proc/{pid}/environ").read_bytes()
            if here or named:
                argv = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                )
                yield pid, argv[:200]
        except OSError:
            continue


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1][:500] if lines else "it said nothing"
