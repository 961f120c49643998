"""Migrations: the numbered files of schemas/postgres, each applied once, in order, never edited afterwards.

They are applied beside functions at work. A lock that somebody else's transaction is in the way of is not waited for,
as everybody would wait behind it: the file is undone and applied again a little later. What a file may do at all is in
schemas/postgres/README.md, and tests/store/test_migrations.py holds every file to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import structlog
from psycopg import sql
from psycopg.errors import DeadlockDetected, LockNotAvailable

from agentflow.errors import Rejected, RetryLater
from agentflow.store.queries import load
from agentflow.store.readiness import ALONE, CONTRACT, Applied, contracts, migrations, newer, unready

SQL = load("migrate.sql")
log = structlog.get_logger(__name__)
PATIENCE_S = 120.0  # for one file; then whoever runs this may do so again
PAUSE_S = 2.0  # for those who had to wait behind it


async def migrate(admin_dsn: str, *, patience_s: float = PATIENCE_S) -> list[str]:
    """Bring the database to this version's schema; returns the names applied now.

    ``admin_dsn`` must be allowed to create roles. Safe to run from many hosts at once, and beside functions of this
    version and the one before. A database that a newer version has migrated is left as it is. Raises ``Rejected`` when
    a file that was applied before has changed since, or something that this version uses is gone; ``RetryLater`` when
    transactions of others are in the way for ``patience_s`` seconds.
    """
    try:
        connecting = await psycopg.AsyncConnection.connect(admin_dsn, autocommit=True)
    except psycopg.Error as fault:
        raise unready(fault) from fault
    async with connecting as conn:
        await conn.execute(SQL["one_at_a_time"])
        await conn.execute(SQL["list"])
        rows = await (await conn.execute(SQL["applied"])).fetchall()
        digests = {name: digest for name, digest, _ in rows}
        known = _known(digests, [Applied(name, contract) for name, _, contract in rows])
        applied = [path for path in known if path.name not in digests]
        for path in applied:
            await _apply(conn, path.name, path.read_bytes(), time.monotonic() + patience_s)
        await conn.execute(SQL["show"])
        await _provide(conn)
    return [path.name for path in applied]


def _known(digests: Mapping[str, str], applied: list[Applied]) -> list[Path]:
    """This version's files; ``Rejected`` where what was applied does not go with them."""
    known = migrations()
    if gone := contracts(applied):
        raise Rejected(newer(gone), code="newer_database", mend="deploy a newer AgentFlow")
    for path in known:
        if path.name in digests and digests[path.name] != hashlib.sha256(path.read_bytes()).hexdigest():
            raise Rejected(
                f"{path.name} was changed after it had been applied",
                code="edited_migration",
                path=f"schemas/postgres/{path.name}",
                mend="restore the file and add a new migration",
            )
    return known


async def _apply(conn: psycopg.AsyncConnection[Any], name: str, text: bytes, until: float) -> None:
    """Apply a file; again where a lock can't be had at once."""
    contract = text.startswith(CONTRACT.encode())
    row = {"name": name, "sha256": hashlib.sha256(text).hexdigest(), "contract": contract}
    while True:
        try:
            if text.startswith(ALONE.encode()):
                await _alone(conn, text)
                await conn.execute(SQL["insert"], row)
            else:
                await _together(conn, text, row)
        except (LockNotAvailable, DeadlockDetected) as fault:
            who = await _in_the_way(conn)
            if time.monotonic() > until:
                mend = "end it, or wait for it, and run `agentflow migrate` again"
                raise RetryLater(f"{name}: tables are in use by {who} ({mend})") from fault
            log.warning("tables are in use: will be tried again", migration=name, by=who)
            await asyncio.sleep(PAUSE_S)
        else:
            return


async def _together(conn: psycopg.AsyncConnection[Any], text: bytes, row: Mapping[str, Any]) -> None:
    """All of a file, and the note that it was applied, or nothing."""
    async with conn.transaction():
        await conn.execute(SQL["wait_little"])
        await conn.execute(text)
        await conn.execute("reset role")
        await conn.execute(SQL["insert"], row)


async def _alone(conn: psycopg.AsyncConnection[Any], text: bytes) -> None:
    """One statement that no transaction may be around, such as an index that is made beside everybody's work. What an
    interrupted one has left goes first."""
    await conn.execute("set role agentflow_owner")
    try:
        for (name,) in await (await conn.execute(SQL["invalid_indexes"])).fetchall():
            await conn.execute(sql.SQL("drop index concurrently {}").format(sql.Identifier("agentflow", name)))
        await conn.execute(text)
    finally:
        await conn.execute("reset role")


async def _in_the_way(conn: psycopg.AsyncConnection[Any]) -> str:
    """The transaction that has been open longest, in words: it is most likely the one."""
    row = await (await conn.execute(SQL["oldest_transaction"])).fetchone()
    return "short transactions" if row is None else f"process {row[0]} ({row[1]}, open for {row[2]} s: {row[3]})"


async def _provide(conn: psycopg.AsyncConnection[Any]) -> None:
    """Partitions for the weeks to come; whoever carries the relay sees to them from then on."""
    for _ in range(20):
        try:
            await conn.execute(SQL["provide"])
        except LockNotAvailable:
            await asyncio.sleep(0.2)
        else:
            return
    raise RetryLater(
        "the schema is up to date, but tables are in use and got no partitions for the weeks to come"
    )
