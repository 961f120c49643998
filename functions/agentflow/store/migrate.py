"""Migrations: the numbered files of schemas/postgres, each applied once, in order, never edited afterwards."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable

from agentflow.errors import Rejected, RetryLater
from agentflow.wire.contracts import contracts_path

_LOCK = 7_305_801_104_022_006  # any constant: one migration at a time per database


def migrations() -> list[Path]:
    """The migration files in order."""
    return sorted((contracts_path() / "schemas" / "postgres").glob("[0-9]*.sql"))


async def migrate(admin_dsn: str) -> list[str]:
    """Bring the database to this version's schema; returns the names applied now.

    ``admin_dsn`` must be allowed to create roles. Safe to run from many hosts at once. Raises ``Rejected`` when a
    file that was applied before has changed since, or the database is newer than this program.
    """
    applied: list[str] = []
    async with await psycopg.AsyncConnection.connect(admin_dsn, autocommit=True) as conn:
        await conn.execute("select pg_advisory_lock(%s)", (_LOCK,))
        await conn.execute(
            "create table if not exists public.agentflow_migrations "
            "(name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
        )
        rows = await (await conn.execute("select name, sha256 from public.agentflow_migrations")).fetchall()
        done: dict[str, str] = dict(rows)
        known = {path.name for path in migrations()}
        if unknown := sorted(set(done) - known):
            raise Rejected(
                f"the database has migrations this program does not know: {', '.join(unknown)}",
                code="newer_database",
                mend="deploy a newer AgentFlow",
            )
        for path in migrations():
            text = path.read_bytes()
            digest = hashlib.sha256(text).hexdigest()
            if path.name in done:
                if done[path.name] != digest:
                    raise Rejected(
                        f"{path.name} was changed after it had been applied",
                        code="edited_migration",
                        path=f"schemas/postgres/{path.name}",
                        mend="restore the file and add a new migration",
                    )
                continue
            async with conn.transaction():
                await conn.execute(text)
                await conn.execute("reset role")
                await conn.execute(
                    "insert into public.agentflow_migrations (name, sha256) values (%s, %s)",
                    (path.name, digest),
                )
            applied.append(path.name)
        await _provide(conn)
    return applied


async def _provide(conn: psycopg.AsyncConnection[Any]) -> None:
    """Partitions for the weeks to come; whoever carries the relay sees to them from then on."""
    for _ in range(20):
        try:
            await conn.execute(
                "select agentflow.provide_partitions(clock_timestamp(), clock_timestamp() + interval '4 weeks')"
            )
        except LockNotAvailable:
            await asyncio.sleep(0.2)
        else:
            return
    raise RetryLater(
        "the schema is up to date, but tables are in use and got no partitions for the weeks to come"
    )
