"""Tenants and their keys: what an administrator does, with the DSN that migrations are run with.

No role that serves requests may create a tenant. Every function opens one connection and closes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import orjson
import psycopg
from psycopg import errors as pg
from psycopg import sql

from agentflow.errors import Rejected, RetryLater
from agentflow.store.api_keys import ApiKey, mint, parse
from agentflow.store.queries import load

SQL = load("admin.sql")
MAX_NAME = 100


async def create_tenant(
    admin_dsn: str, name: str, *, tenant: UUID | None = None, limit_micro: int | None = None
) -> UUID:
    """Create a tenant and return its id; creating the same ``tenant`` id again changes nothing but the limit.

    ``limit_micro`` is the most it may ever spend, in micro-dollars; None: no limit.
    """
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        mend = f"use 1 to {MAX_NAME} printable characters"
        raise Rejected("is not a tenant's name", code="bad_name", path="name", mend=mend)
    tenant = tenant or uuid4()
    async with administering(admin_dsn) as conn:
        await conn.execute(SQL["create_tenant"], {"tenant": tenant, "name": name})
        if limit_micro is not None:
            await conn.execute(SQL["limit_tenant"], {"tenant": tenant, "limit": limit_micro})
    return tenant


async def issue_key(admin_dsn: str, tenant: UUID, pepper: str, *, label: str = "", admin: bool = False) -> ApiKey:
    """Create an API key; ``str()`` of it is stored nowhere. ``Rejected`` for an unknown tenant. ``admin``: it may
    correct what was spent."""
    key = mint(tenant)
    hashed, label = key.hashed(pepper), label[:MAX_NAME]
    row = {"tenant": tenant, "key_id": key.id, "hash": hashed, "label": label, "admin": admin}
    async with administering(admin_dsn) as conn:
        done = await conn.execute(SQL["insert_key"], row)
        if done.rowcount != 1:
            raise unknown_tenant(tenant)
    return key


async def set_price(admin_dsn: str, tenant: UUID, scope: str, card: Mapping[str, Any] | None) -> int:
    """Tell a tenant what a model or tool costs it, as the next version, which is returned; None: as everybody."""
    text = None if card is None else orjson.dumps(card).decode()
    async with administering(admin_dsn) as conn:
        if await (await conn.execute(SQL["lock_tenant"], {"tenant": tenant})).fetchone() is None:
            raise unknown_tenant(tenant)
        row = await (await conn.execute(SQL["set_price"], {"tenant": tenant, "scope": scope, "card": text})).fetchone()
    assert row is not None
    return int(row[0])


async def prices(admin_dsn: str, tenant: UUID, scope: str | None = None) -> list[dict[str, Any]]:
    """What a tenant was told, by scope, the newest version of each first."""
    async with administering(admin_dsn) as conn:
        found = await conn.execute(SQL["list_prices"], {"tenant": tenant, "scope": scope})
        names = ("scope", "version", "card", "set_at")
        return [dict(zip(names, row, strict=True)) for row in await found.fetchall()]


async def set_password(admin_dsn: str, role: str, password: str) -> None:
    """Give a role a password; the server, its log and its history of statements see only the hash."""
    async with administering(admin_dsn) as conn:
        hashed = conn.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        await conn.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(hashed)))


async def is_live(admin_dsn: str, text: str) -> bool:
    """Whether this database knows the key and has not revoked it (its secret is not checked)."""
    key = parse(text)
    if key is None:
        return False
    async with administering(admin_dsn) as conn:
        found = await conn.execute(SQL["live_key"], {"tenant": key.tenant, "key_id": key.id})
        return await found.fetchone() is not None


async def revoke_key(admin_dsn: str, tenant: UUID, key_id: str) -> bool:
    """Make a key useless, within the seconds that APIs remember keys; False when none is live."""
    async with administering(admin_dsn) as conn:
        done = await conn.execute(SQL["revoke_key"], {"tenant": tenant, "key_id": key_id})
        return done.rowcount == 1


def unknown_tenant(tenant: UUID) -> Rejected:
    """There is no such tenant, and how to make one."""
    mend = "create it with: agentflow tenant create NAME"
    return Rejected(f"there is no tenant {tenant}", code="unknown_tenant", path="tenant", mend=mend)


@asynccontextmanager
async def administering(admin_dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """An administrator's connection, committed at the end; what is in the way is said in our words."""
    try:
        async with await psycopg.AsyncConnection.connect(admin_dsn) as conn:
            yield conn
    except pg.InsufficientPrivilege as fault:
        mend = "use the DSN of a superuser, or of a role with BYPASSRLS that owns the tables"
        raise Rejected(
            "this database role may not administer tenants", code="not_admin", mend=mend
        ) from fault
    except pg.UndefinedTable as fault:
        raise Rejected(
            "the database has no schema yet", code="not_migrated", mend="agentflow migrate"
        ) from fault
    except pg.UndefinedColumn as fault:
        text = "the schema is older than this program"
        raise Rejected(text, code="not_migrated", mend="agentflow migrate, with this version") from fault
    except psycopg.OperationalError as fault:
        raise RetryLater("the database cannot be reached") from fault
