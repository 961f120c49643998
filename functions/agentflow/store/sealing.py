"""Sealing: what has been noted becomes part of each tenant's chain, in its order.

Logs in as agentflow_relay, which sees every tenant's notes. One connection per call, and none in between.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import errors as pg

from agentflow.errors import Rejected, RetryLater
from agentflow.store import chain as links
from agentflow.store.chain import ChainKeys
from agentflow.store.queries import load

SQL = load("audit.sql")
AT_ONCE = 2_000  # notes that one transaction seals, and runs that one entry names

Head = tuple[int, bytes]  # the number of the last entry, and the chain with it


class Seal(NamedTuple):
    """Where a tenant's chain has come to: who wants to know later whether its end was cut off keeps this elsewhere."""

    tenant: UUID
    number: int
    link: str


async def seal(relay_dsn: str, keys: ChainKeys) -> list[Seal]:
    """Seal all that has been noted; the chains that have grown. Nothing where somebody else is at it.

    Raises ``RetryLater`` when the database is away; what is not sealed then is still noted.
    """
    heads: dict[UUID, Head] = {}
    try:
        async with await psycopg.AsyncConnection.connect(
            relay_dsn, application_name="agentflow-seal"
        ) as conn:
            await conn.set_autocommit(True)
            await conn.execute("set enable_seqscan = off")
            while grown := await _seal_some(conn, keys):
                heads |= grown
    except (pg.UndefinedTable, pg.UndefinedColumn) as fault:
        mend = "agentflow migrate"
        raise Rejected("the database has an older schema", code="not_migrated", mend=mend) from fault
    except (psycopg.OperationalError, psycopg.InterfaceError) as fault:
        raise RetryLater(f"PostgreSQL: {str(fault).strip() or type(fault).__name__}") from fault
    return [Seal(tenant, number, chain[links.SHOWN].hex()) for tenant, (number, chain) in heads.items()]


async def _seal_some(conn: psycopg.AsyncConnection[Any], keys: ChainKeys) -> dict[UUID, Head]:
    async with conn.transaction():
        cursor = await conn.execute(SQL["lead"])
        found = await cursor.fetchone()
        assert found is not None
        leads, now_ms = found
        if not leads:
            return {}
        notes = await (await conn.execute(SQL["take_notes"], (AT_ONCE,))).fetchall()
        if not notes:
            return {}
        named = sorted({note[0] for note in notes})
        heads = {
            tenant: (number, bytes(chain))
            for tenant, number, chain in await (await conn.execute(SQL["read_heads"], (named,))).fetchall()
        }
        rows: list[tuple[UUID, int, str, str, bytes, bytes]] = []
        for tenant, _, kind, data in notes:
            number, chain = heads.get(tenant) or (0, keys.begin(links.tenant_content(tenant)))
            digest = links.digest(data.encode())
            number += 1
            chain = keys.follow(chain, number, links.sealed_content(now_ms, kind, digest))
            rows.append((tenant, number, kind, data, digest, chain[links.SHOWN]))
            heads[tenant] = (number, chain)
        columns = [list(column) for column in zip(*rows, strict=True)]
        await conn.execute(SQL["insert_entries"], (now_ms, *columns))
        numbers, chains = ([head[at] for head in heads.values()] for at in (0, 1))
        await conn.execute(SQL["write_heads"], (list(heads), numbers, chains))
    return heads
