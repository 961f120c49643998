"""Migrations go beside functions at work: they only add, and nobody waits behind them for longer than a moment."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from offered import LOCKS, Schema, findings

from agentflow.errors import Rejected, RetryLater
from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.store import migrate as migrating
from agentflow.store import readiness
from agentflow.store.migrate import migrate
from agentflow.store.readiness import ALONE, CONTRACT, migrations

BEFORE_ANY_USER = "0012_spend.sql"
"""Files up to this one were never applied beside functions at work."""
CHECKED = [path for path in migrations() if path.name > BEFORE_ANY_USER]


def applied(conn: psycopg.Connection[Any], path: Path) -> list[str]:
    """Apply a file, and what is to be said against it."""
    text = path.read_text()
    first = text.partition("\n")[0]
    if first.startswith(ALONE):
        statement = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip()
        conn.execute(text.replace(" concurrently", "").encode())
        known = re.fullmatch(r"create index concurrently if not exists \w+ on [^;]+;", statement)
        return [] if known else ["is not one `create index concurrently if not exists …`"]
    if first.startswith(CONTRACT) and (since := first.removeprefix(CONTRACT).strip()) not in before(path):
        return [f"names no migration before it: {since}"]
    widens = frozenset(re.findall(r"^-- widens: (\w+)$", text, re.MULTILINE))
    old = Schema.of(conn)
    with conn.transaction():
        conn.execute(path.read_bytes())
        conn.execute("reset role")
        conn.execute("set local search_path to default")  # names are told as they were before
        locks = set(conn.execute(LOCKS).fetchall())
        return findings(old, Schema.of(conn), locks, widens=widens, contract=first.startswith(CONTRACT))


def before(path: Path) -> set[str]:
    return {each.name for each in migrations() if each.name < path.name}


@pytest.fixture
def conn(database: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database.admin, autocommit=True) as conn:
        yield conn


def test_every_migration_only_adds(postgres: EmbeddedPostgres, database: Any) -> None:
    assert database  # the roles are there
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute("create database test_migrations")
    try:
        with psycopg.connect(postgres.dsn(database="test_migrations"), autocommit=True) as conn:
            said = {}
            for path in migrations():
                if path in CHECKED:
                    said[path.name] = applied(conn, path)
                else:
                    with conn.transaction():
                        conn.execute(path.read_bytes())
            assert {name: found for name, found in said.items() if found} == {}
    finally:
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            admin.execute("drop database test_migrations with (force)")


GOOD = """-- widens: timers_kind_check
set local role agentflow_owner;
set local search_path = agentflow;
alter table runs add column more integer not null default 0, add column most text;
create table news (tenant_id uuid primary key, what text not null);
create unique index news_what on news (what);
alter table timers drop constraint timers_kind_check, add constraint timers_kind_check check (kind <> '') not valid;
alter table timers validate constraint timers_kind_check;
create or replace function spent_now(spent bigint, ends_at timestamptz, at timestamptz) returns bigint
language sql immutable return spent;
grant select on news to agentflow_engine;
"""
BAD = {
    "drop table templates": "takes away table templates",
    "alter table runs drop column tokens": "takes away column runs.tokens bigint",
    "alter table runs rename column tokens to words": "takes away column runs.tokens bigint",
    "alter table limits alter column weight type bigint": "takes away column limits.weight integer",
    "alter table limits alter column weight type bigint -- again": "writes all of limits anew",
    "alter table runs add column x integer not null": "runs requires more: column without default x",
    "alter table runs alter column trace set not null": "runs requires more: column without default trace",
    "alter table limits add constraint few check (weight < 9)": "limits requires more: constraint few",
    "create unique index one_name on tenants (name)": "tenants requires more: unique index one_name",
    "create index runs_by on runs (workflow)": "makes an index on runs, and everybody waits",
    "create index steps_by on steps (task)": "makes an index on steps, and everybody waits",
    "update runs set tokens = 0": "writes rows of runs, and everybody waits",
    "do $$ begin execute 'drop table ' || 'templates'; end $$": "takes away table templates",
    "drop function spent_now": "takes away function agentflow.spent_now(bigint,timestamp with time zone,"
    "timestamp with time zone) returns bigint",
    "revoke insert on runs from agentflow_engine": "takes away right agentflow_engine may INSERT runs",
    "drop policy relay on outbox": "takes away policy outbox: relay to {agentflow_relay}",
}


def test_what_adds_is_taken(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    (tmp_path / "0099_good.sql").write_text(GOOD)
    assert applied(conn, tmp_path / "0099_good.sql") == []


def test_a_slip_in_a_migration_is_found(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    path = tmp_path / "0099_bad.sql"
    for statement, said in BAD.items():
        path.write_text(f"set local role agentflow_owner;\nset local search_path = agentflow;\n{statement}\n;")
        with conn.transaction(force_rollback=True):
            assert said in applied(conn, path), statement


def test_what_is_taken_away_names_since_when_nobody_uses_it(conn: psycopg.Connection[Any], tmp_path: Path) -> None:
    path = tmp_path / "0099_less.sql"
    path.write_text(f"{CONTRACT} 0098_none.sql\ndrop table agentflow.templates;")
    assert applied(conn, path) == ["names no migration before it: 0098_none.sql"]
    path.write_text(f"{CONTRACT} {BEFORE_ANY_USER}\ndrop table agentflow.templates;")
    assert applied(conn, path) == []


MORE = "alter table agentflow.runs add column more integer;"


# -- beside functions at work ----------------------------------------------------------------------------


@pytest.fixture
def one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """A file after all others, which does what the test has it do."""
    path = tmp_path / "0099_more.sql"
    known = migrations()
    for module in (migrating, readiness):
        monkeypatch.setattr(module, "migrations", lambda: [*known, path])
    monkeypatch.setattr(migrating, "PAUSE_S", 0.1)
    path.write_text(MORE)
    return path.write_text


@pytest.mark.usefixtures("one_more")
async def test_nobody_waits_behind_a_migration_for_long(database: Any) -> None:
    count = "select count(*) from agentflow.runs"
    async with await psycopg.AsyncConnection.connect(database.admin) as somebody:
        await somebody.execute(count)  # and does not commit
        working = asyncio.create_task(migrate(database.admin))
        slowest = 0.0
        async with await psycopg.AsyncConnection.connect(database.admin, autocommit=True) as other:
            await other.execute("set statement_timeout = '5s'")
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                began = time.monotonic()
                await other.execute(count)
                slowest = max(slowest, time.monotonic() - began)
        assert not working.done()
        assert 0.2 < slowest < 4.0  # the migration has tried, and let others through
    assert await working == ["0099_more.sql"]
    assert await migrate(database.admin) == []


@pytest.mark.usefixtures("one_more")
async def test_who_is_in_the_way_of_a_migration_is_named(database: Any) -> None:
    async with await psycopg.AsyncConnection.connect(database.admin) as somebody:
        await somebody.execute("select count(*) from agentflow.runs")
        said = rf"0099_more.sql: .* process {somebody.info.backend_pid} .*agentflow migrate"
        with pytest.raises(RetryLater, match=said):
            await migrate(database.admin, patience_s=0)


async def test_an_index_is_made_beside_everybodys_work(
    database: Any, conn: psycopg.Connection[Any], one_more: Callable[[str], object]
) -> None:
    """What an interrupted one has left is made anew, and is whole."""
    index = "create index concurrently if not exists by_trace on agentflow.runs (trace);"
    one_more(f"{ALONE} runs are many\n{index}")
    conn.execute("create index by_trace on agentflow.runs (trace)")
    conn.execute("update pg_index set indisvalid = false where indexrelid = 'agentflow.by_trace'::regclass")
    assert await migrate(database.admin) == ["0099_more.sql"]
    whole = "select indisvalid from pg_index where indexrelid = 'agentflow.by_trace'::regclass"
    assert conn.execute(whole).fetchone() == (True,)


@pytest.mark.usefixtures("one_more")
async def test_the_former_version_leaves_a_newer_schema_as_it_is(database: Any) -> None:
    with psycopg.connect(database.admin, autocommit=True) as conn:
        conn.execute("insert into agentflow_migrations (name, sha256) values ('9999_next.sql', '')")
        assert await migrate(database.admin) == ["0099_more.sql"]
        conn.execute("update agentflow_migrations set contract = true where name = '9999_next.sql'")
    with pytest.raises(Rejected, match=r"gone with 9999_next\.sql"):
        await migrate(database.admin)


async def test_an_edited_file_is_refused(database: Any, one_more: Callable[[str], object]) -> None:
    await migrate(database.admin)
    one_more("alter table agentflow.runs add column less integer;")
    with pytest.raises(Rejected, match=r"0099_more\.sql was changed"):
        await migrate(database.admin)
