"""Migrating, tenants and keys from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentflow.store.passfile import passwords

from .conftest import PEPPER, Served, run
from .test_main import one_line


@pytest.fixture
def administrator(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    environment.setenv("AGENTFLOW_KEY_PEPPER", PEPPER)
    return environment


async def test_a_new_database_is_migrated_once(administrator: pytest.MonkeyPatch, postgres: Any) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn(), autocommit=True) as admin:
        await admin.execute("create database fresh")
    dsn = postgres.dsn(database="fresh")
    one_line(await run("tenant", "create", "acme", "--database", dsn), "no schema", "agentflow migrate")
    first = await run("migrate", "--database", dsn)
    assert first.code == 0
    assert "applied 0001_house.sql" in first.out
    assert "up to date" in (await run("migrate", "--database", dsn)).out


async def test_a_migration_gives_the_roles_the_passwords_of_a_file(
    administrator: pytest.MonkeyPatch, postgres: Any, tmp_path: Path
) -> None:
    dsn, file = postgres.dsn(database="passwords"), tmp_path / "pgpass"
    async with await psycopg.AsyncConnection.connect(postgres.dsn(), autocommit=True) as admin:
        await admin.execute("create database passwords")
        file.write_text("# ours\ndb:5432:*:agentflow_engine:a\\:b\n")
        command = ("migrate", "--database", dsn, "--passwords", str(file))
        one_line(await run(*command), "no password for agentflow_api", "host:port:database:agentflow_api:password")
        one_line(await run(*command[:-1], str(tmp_path / "none")), "cannot be read", "name a file")
        with file.open("a") as more:
            more.writelines(f"db:5432:*:agentflow_{role}:c\n" for role in ("engine", "api", "relay", "keeper"))
        assert "gave agentflow_engine" in (await run(*command)).out
        query = "select rolname, rolpassword from pg_authid where rolname like 'agentflow\\_%' and rolcanlogin"
        kept = dict(await (await admin.execute(query)).fetchall())
        assert len(kept) == 4 and all(word.startswith("SCRAM-SHA-256$") for word in kept.values())
        for role in kept:
            await admin.execute(f"alter role {role} password null")
        await admin.execute("drop database passwords")
    assert passwords(file)["agentflow_engine"] == "a:b"  # the first line counts, as for libpq


async def test_a_tenant_and_a_key_open_the_api(administrator: pytest.MonkeyPatch, served: Served) -> None:
    database = ("--database", served.database.admin)
    for amount in ("inf", "1e300", "0.0000001"):
        one_line(await run("tenant", "create", "acme", "--limit-usd", amount, *database), "--limit-usd", "six decimals")
    made = await run("tenant", "create", "acme", "--limit-usd", "2.5", *database, "--json")
    tenant = made.json["tenant"]
    key = (await run("key", "create", "--tenant", tenant, "--label", "ci", *database)).out.strip()
    administrator.setenv("AGENTFLOW_API_URL", served.url)
    administrator.setenv("AGENTFLOW_API_KEY", key)
    assert (await run("runs")).out.strip() == "no runs"
    administrator.setenv("AGENTFLOW_API_KEY", key[:-1] + ("A" if key[-1] != "A" else "B"))
    one_line(await run("runs"), "not valid", "AGENTFLOW_API_KEY")
    async with await psycopg.AsyncConnection.connect(served.database.admin) as conn:
        cursor = await conn.execute(
            "select limit_micro from agentflow.budgets where tenant_id = %s", (tenant,)
        )
        assert await cursor.fetchone() == (2_500_000,)


async def test_a_key_that_no_api_would_take_is_not_made(
    environment: pytest.MonkeyPatch, served: Served, tmp_path: Path
) -> None:
    """Nobody is to find out by a 401 that the pepper was missing where the key was made."""
    tenant = (await run("tenant", "create", "pepper", "--database", served.database.admin)).out.strip()
    command = ("key", "create", "--tenant", tenant)
    said = ("AGENTFLOW_KEY_PEPPER", "for development", "infra/knative/administration.yaml")
    one_line(await run(*command, "--database", served.database.admin), *said)
    environment.setenv("AGENTFLOW_DATABASE_URL", served.database.admin)
    one_line(await run(*command), *said)
    async with await psycopg.AsyncConnection.connect(served.database.admin) as conn:
        cursor = await conn.execute("select count(*) from agentflow.api_keys where tenant_id = %s", (tenant,))
        assert await cursor.fetchone() == (0,)
    (tmp_path / "pepper").write_text(PEPPER + "\n")  # as a Secret is mounted
    environment.setenv("AGENTFLOW_KEY_PEPPER", f"secret://file{tmp_path / 'pepper'}")
    made = await run(*command)
    assert made.code == 0, made.err
    environment.setenv("AGENTFLOW_API_URL", served.url)
    environment.setenv("AGENTFLOW_API_KEY", made.out.strip())
    assert (await run("runs")).out.strip() == "no runs"


async def test_what_cannot_be_made_is_said_in_one_line(
    administrator: pytest.MonkeyPatch, served: Served
) -> None:
    database = ("--database", served.database.admin)
    one_line(await run("key", "create", "--tenant", "x", *database), "--tenant", "tenant create")
    unknown = "00000000-0000-4000-8000-000000000000"
    one_line(
        await run("key", "create", "--tenant", unknown, *database), f"no tenant {unknown}", "tenant create"
    )
    one_line(await run("tenant", "create", "", *database), "name")
    role = served.database.dsn("agentflow_engine")
    one_line(await run("tenant", "create", "acme", "--database", role), "may not administer", "BYPASSRLS")
    one_line(
        await run("tenant", "create", "acme", "--database", "postgresql://127.0.0.1:9/x"), "cannot be reached"
    )
