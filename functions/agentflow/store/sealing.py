"""Sealing: what has been noted becomes part of each tenant's chain, in its order.

Logs in as agentflow_relay, which sees every tenant's notes. One connection per call, and none in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg import errors as pg

from agentflow.errors import Rejected, RetryLater
from agentflow.store import chain as links
from agentflow.store.chain import ChainKeys
from agentflow.store.queries import load

SQL = load("audit.sql")
AT_ONCE = 5_000  # notes that one transaction seals
RUNS = 500  # runs that one entry names at most

Note = tuple[UUID, int, str, UUID | None, int | None, bytes | None, str | None, Any]


class Seal(NamedTuple):
    """Where a tenant's chain has come to: who wants to know later whether its end was cut off keeps this elsewhere."""

    tenant: UUID
    number: int
    link: str


async def seal(relay_dsn: str, keys: ChainKeys) -> list[Seal]:
    """Seal all that has been noted; the chains that have grown. Nothing where somebody else is at it.

    Raises ``RetryLater`` when the database is away; what is not sealed then is still noted.
    """
    heads: dict[UUID, bytes] = {}
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
    return [Seal(tenant, links.number(chain), chain[links.SHOWN].hex()) for tenant, chain in heads.items()]


async def _seal_some(conn: psycopg.AsyncConnection[Any], keys: ChainKeys) -> dict[UUID, bytes]:
    async with conn.transaction():
        cursor = await conn.execute(SQL["lead"])
        found = await cursor.fetchone()
        assert found is not None
        leads, now_ms = found
        if not leads:
            return {}
        notes: list[Note] = await (await conn.execute(SQL["take_notes"], (AT_ONCE,))).fetchall()
        if not notes:
            return {}
        notes.sort(key=itemgetter(0, 1))
        named = sorted({note[0] for note in notes})
        heads = {
            tenant: bytes(chain)
            for tenant, chain in await (await conn.execute(SQL["read_heads"], (named,))).fetchall()
        }
        rows: list[tuple[UUID, int, str, str, bytes, bytes]] = []
        for tenant, mine in groupby(notes, key=itemgetter(0)):
            chain = heads.get(tenant) or keys.begin(links.tenant_content(tenant))
            for kind, data in entries(list(mine)):
                digest = links.digest(data)
                chain = keys.follow(chain, links.sealed_content(now_ms, kind, digest))
                rows.append((tenant, links.number(chain), kind, data.decode(), digest, chain[links.SHOWN]))
            heads[tenant] = chain
        columns = [list(column) for column in zip(*rows, strict=True)]
        await conn.execute(SQL["insert_entries"], (now_ms, *columns))
        await conn.execute(SQL["write_heads"], (list(heads), list(heads.values())))
    return heads


def entries(notes: Sequence[Note]) -> Iterator[tuple[str, bytes]]:
    """One tenant's notes as entries (kind, data): runs in a row together, everything else by itself."""
    for of_runs, group in groupby(notes, key=lambda note: note[2] == "run"):
        some = list(group)
        if not of_runs:
            yield from ((kind, _deed(at, data)) for _, _, kind, _, _, _, data, at in some)
            continue
        for at in range(0, len(some), RUNS):
            runs = [
                [str(run), number, link and bytes(link).hex()]
                for _, _, _, run, number, link, _, _ in some[at : at + RUNS]
            ]
            yield "runs", orjson.dumps({"runs": runs})


def _deed(at: Any, data: str | None) -> bytes:
    return orjson.dumps({"noted_at": at.isoformat(), **(orjson.loads(data) if data else {})})
