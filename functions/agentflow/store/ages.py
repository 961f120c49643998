"""What was set for a tenant's retention, read and written by the operator with the administrator's DSN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg.rows import dict_row

from agentflow.core.retention import Ages, parse_age
from agentflow.errors import Rejected, RetryLater
from agentflow.store.admin import unknown_tenant
from agentflow.store.queries import load

SQL = load("ages.sql")


async def read_ages(admin_dsn: str, tenant: UUID) -> dict[str, Any]:
    """Ages by kind as texts (None: as the installation says), and whether they are ``fixed``."""
    rows = await _ask(admin_dsn, "read", {"tenant": tenant})
    if not rows:
        raise unknown_tenant(tenant)
    return rows[0]


async def write_ages(
    admin_dsn: str, tenant: UUID, ages: Mapping[str, str | None], *, fixed: bool
) -> dict[str, Any]:
    """Set a tenant's ages; with ``fixed`` the tenant can't change them. Gives what is set from now on."""
    values = {kind: ages.get(kind) for kind in Ages._fields}
    for kind, text in values.items():
        if text is not None:
            parse_age(text, f"--{kind}")
    await read_ages(admin_dsn, tenant)
    await _ask(admin_dsn, "write", {"tenant": tenant, "fixed": fixed, **values})
    return await read_ages(admin_dsn, tenant)


async def _ask(admin_dsn: str, statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        async with await psycopg.AsyncConnection.connect(admin_dsn, row_factory=dict_row) as conn:
            cursor = await conn.execute(SQL[statement], values)
            return await cursor.fetchall() if cursor.description else []
    except pg.InsufficientPrivilege as fault:
        mend = "use the DSN of a superuser, or of a role with BYPASSRLS that owns the tables"
        raise Rejected(
            "this database role may not administer tenants", code="not_admin", mend=mend
        ) from fault
    except pg.UndefinedTable as fault:
        raise Rejected(
            "the database has an older schema", code="not_migrated", mend="agentflow migrate"
        ) from fault
    except psycopg.OperationalError as fault:
        raise RetryLater("the database cannot be reached") from fault
