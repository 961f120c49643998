"""Row-level security: every table, found in the catalogue, keeps one tenant's rows from every other tenant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg

A, B = uuid4(), uuid4()
RUN = uuid4()
BORN = "2026-01-01T00:00:00Z"
ROLES = {"agentflow_api": "app.tenant_id", "agentflow_engine": "app.tenants"}

# One row of tenant A in every table. A table that is missing here fails the test below.
ROWS: dict[str, dict[str, Any]] = {
    "tenants": {"name": "a"},
    "api_keys": {"key_id": "k1", "hash": b"h"},
    "budgets": {"scope": "tenant", "limit_micro": 5},
    "workflows": {"name": "w", "version": 1, "hash": "h", "document": "{}"},
    "triggers": {"event_type": "t", "workflow": "w", "version": 1},
    "blobs": {"ref": "blob:sha256:0", "content": b"secret"},
    "runs": {"run_id": RUN, "workflow": "w", "version": 1, "status": "running"},
    "steps": {
        "run_id": RUN, "born": BORN, "step": 1, "attempt": 1, "epoch": 0, "task": "t", "kind": "tool",
        "status": "halted", "requested_at": BORN,
    },
    "history": {"run_id": RUN, "born": BORN, "seq": 1, "name": "n", "data": "{}", "hash": b"h"},
    "outbox": {"run_id": RUN, "key": "k", "consumer": "plan", "name": "n", "data": "{}", "due_at": "now"},
    "inbox": {"consumer": "plan", "event_id": "e"},
    "timers": {"run_id": RUN, "key": "k", "kind": "wait", "fire_at": "now"},
    "subscriptions": {"event_type": "t", "run_id": RUN, "step": 1},
    "parked": {
        "parked_id": uuid4(), "consumer": "plan", "subject": "s", "reason": "r", "headers": "{}", "payload": b"",
        "tries": 1,
    },
    "ledger": {
        "run_id": RUN, "born": BORN, "step": 1, "attempt": 1, "entry": "hold", "amount_micro": 1, "held_micro": 1,
        "price": "p",
    },
    "retention": {"runs": "90d"},
    "leftovers": {"born": BORN, "run_id": RUN},
    "upkeep": {"chore": "prune"},
    "blob_uses": {"ref": "blob:sha256:0", "run_id": RUN},
    "limits": {"scope": "tenant", "concurrency": 1},
    "prices": {"scope": "model:small", "version": 1, "card": "{}"},
    "corrections": {
        "key": "k", "scope": "tenant", "amount_micro": 1, "why": "w", "made_by": "k", "request_hash": "",
    },
    "templates": {"key": "k", "workflow": "w"},
    "claims": {"run_id": RUN, "key": "1.1", "epoch": 0, "claimant": RUN, "until": BORN},
    "spend": {
        "day": "2026-01-01", "workflow": "w", "version": 1, "task": "t", "kind": "llm", "provider": "p", "name": "m",
        "price": "v", "budget": "", "shard": 1, "agent": "", "calls": 1, "input_tokens": 1, "output_tokens": 1,
        "cache_read_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0,
        "ms": 1, "cost_micro": 1, "held_micro": 2,
    },
    "run_spend": {
        "day": "2026-01-01", "workflow": "w", "version": 1, "task": "", "shard": 1, "runs": 1, "succeeded": 1,
        "starts": 1, "calls": 1, "input_tokens": 1, "output_tokens": 1, "cost_micro": 1, "expected_runs": 0,
        "expected_micro": 0, "expected_cost_micro": 0,
    },
    "gatekeeper": {"epoch": 1},
    "unsealed": {"kind": "k"},
    "audit": {"n": 1, "at": "now", "kind": "runs", "data": "{}", "digest": b"d", "link": b"l"},
    "audit_heads": {"n": 1, "chain": b"c"},
}  # fmt: skip
# Partitions are reached through their tables alone.
CATALOGUE = """
select relname from pg_class
where relnamespace = 'agentflow'::regnamespace and relkind in ('r', 'p') and not relispartition order by 1"""
# What runs with the owner's rights: it makes and drops tables, and hands out no row.
DOORS = {"provide_partitions", "drop_partition"}
# All that the keeper can read, who sees every tenant's rows: keys, times and sizes.
KEEPERS = {
    "tenants": {"tenant_id"},
    "runs": {
        "tenant_id",
        "run_id",
        "workflow",
        "created_at",
        "finished_at",
        "held_micro",
        "steps",
        "seq",
        "rev",
    },
    "steps": {"tenant_id", "born", "run_id", "step", "attempt"},
    "history": {"tenant_id", "born", "run_id", "seq"},
    "ledger": {"tenant_id", "born", "run_id", "step", "attempt", "entry", "at"},
    "inbox": {"tenant_id", "consumer", "event_id", "at"},
    "outbox": {"tenant_id", "run_id"},
    "timers": {"tenant_id", "run_id"},
    "parked": {"tenant_id", "parked_id", "parked_at"},
    "blobs": {"tenant_id", "ref", "used_at"},
    "blob_uses": {"tenant_id", "ref", "run_id"},
    "claims": {"tenant_id", "run_id"},
    "retention": {"tenant_id", "runs", "ledger", "inbox", "parked", "fixed", "updated_at", "spend"},
    "leftovers": {"tenant_id", "born", "run_id", "removed_at", "rows"},
    "upkeep": {"tenant_id", "chore", "detail", "done_at"},
    "audit": {"tenant_id", "n", "at", "kind", "data"},
    # Sums, which it folds.
    **{table: {"tenant_id", *ROWS[table]} for table in ("spend", "run_spend")},
}


@pytest.fixture(scope="module")
def admin(module_database: Any) -> Iterator[psycopg.Connection[Any]]:
    """Tenant A has one row in every table, tenant B only itself."""
    with psycopg.connect(module_database.admin, autocommit=True) as conn:
        conn.execute("insert into agentflow.tenants (tenant_id, name) values (%s, 'b')", (B,))
        for table, row in ROWS.items():
            insert(conn, table, A, row)
        conn.execute("delete from agentflow.unsealed where kind <> 'k'")  # what was noted of the others
        yield conn


@pytest.fixture(params=sorted(ROLES))
def as_b(
    request: pytest.FixtureRequest, admin: Any, module_database: Any
) -> Iterator[psycopg.Connection[Any]]:
    """A connection of each application role that has named tenant B."""
    with psycopg.connect(module_database.dsn(request.param)) as conn:
        name(conn, request.param, B)
        yield conn
        conn.rollback()


def name(conn: psycopg.Connection[Any], role: str, tenant: UUID) -> None:
    value = str(tenant) if role == "agentflow_api" else "{" + str(tenant) + "}"
    conn.execute("select set_config(%s, %s, true)", (ROLES[role], value))


def insert(conn: psycopg.Connection[Any], table: str, tenant: UUID, row: dict[str, Any]) -> None:
    columns = ["tenant_id", *row]
    places = ", ".join(["%s"] * len(columns))
    conn.execute(
        f"insert into agentflow.{table} ({', '.join(columns)}) values ({places})", (tenant, *row.values())
    )


def attempt(conn: psycopg.Connection[Any], statement: str, params: tuple[Any, ...] = ()) -> int:
    """Rows touched; 0 where the role may not even try."""
    try:
        with conn.transaction():
            return conn.execute(statement, params).rowcount
    except pg.InsufficientPrivilege:
        return 0


def test_the_samples_cover_every_table(admin: psycopg.Connection[Any]) -> None:
    assert {table for (table,) in admin.execute(CATALOGUE)} == set(ROWS)


def test_every_table_forces_row_level_security_and_is_owned_by_nobody_who_logs_in(admin: Any) -> None:
    rows = admin.execute(
        """select c.relname, c.relrowsecurity, c.relforcerowsecurity, r.rolcanlogin or r.rolsuper or r.rolbypassrls
           from pg_class c join pg_roles r on r.oid = c.relowner
           where c.relnamespace = 'agentflow'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition"""
    ).fetchall()
    assert len(rows) == len(ROWS)
    assert [row for row in rows if row[1:] != (True, True, False)] == []


def test_no_application_role_can_step_over_the_walls(admin: Any) -> None:
    rows = admin.execute(
        "select rolname, rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname like 'agentflow%'"
    ).fetchall()
    assert len(rows) == 5
    assert [row for row in rows if any(row[1:])] == []
    doors = "select proname from pg_proc where pronamespace = 'agentflow'::regnamespace and prosecdef"
    views = "select count(*) from pg_class where relnamespace = 'agentflow'::regnamespace and relkind in ('v', 'm')"
    assert {name for (name,) in admin.execute(doors)} == DOORS
    assert admin.execute(views).fetchone() == (0,)


def test_every_key_holds_the_tenant(admin: Any) -> None:
    """A unique or foreign key without the tenant would tell of another's rows."""
    rows = admin.execute(
        """select conrelid::regclass::text, conname from pg_constraint
           where connamespace = 'agentflow'::regnamespace and contype in ('p', 'u', 'f')
             and not exists (select from pg_attribute a where a.attrelid = conrelid and a.attname = 'tenant_id'
                                                          and a.attnum = any (conkey))
           union all
           select indrelid::regclass::text, indexrelid::regclass::text from pg_index i
           join pg_class c on c.oid = i.indrelid and c.relnamespace = 'agentflow'::regnamespace
           where indisunique and not exists (select from pg_attribute a where a.attrelid = indrelid
                                             and a.attname = 'tenant_id' and a.attnum = any (indkey))"""
    ).fetchall()
    assert rows == []


@pytest.mark.parametrize("table", sorted(ROWS))
def test_another_tenant_reads_and_changes_nothing(
    as_b: psycopg.Connection[Any], admin: Any, table: str
) -> None:
    of_a = f"from agentflow.{table} where tenant_id = %s"
    assert attempt(as_b, f"select 1 {of_a}", (A,)) == 0
    others = attempt(as_b, f"select tenant_id from agentflow.{table}")
    assert others == (1 if table == "tenants" else 0)
    before = admin.execute(
        f"select to_json(t) from agentflow.{table} t where tenant_id = %s", (A,)
    ).fetchall()
    column = next(iter(ROWS[table]))
    assert attempt(as_b, f"update agentflow.{table} set {column} = {column} where tenant_id = %s", (A,)) == 0
    assert attempt(as_b, f"delete {of_a}", (A,)) == 0
    after = admin.execute(f"select to_json(t) from agentflow.{table} t where tenant_id = %s", (A,)).fetchall()
    assert after == before
    assert len(before) == 1


@pytest.mark.parametrize("table", sorted(ROWS))
def test_another_tenant_cannot_write_rows_in_its_name(as_b: psycopg.Connection[Any], table: str) -> None:
    row = {**ROWS[table]}
    for key in ("key_id", "scope", "ref", "key", "event_id", "event_type", "name"):
        if isinstance(row.get(key), str):
            row[key] += "2"
    with pytest.raises(pg.InsufficientPrivilege):
        insert(as_b, table, A, row)


@pytest.mark.parametrize("table", ["triggers", "runs"])
def test_another_tenants_rows_cannot_be_referenced(as_b: Any, admin: Any, table: str) -> None:
    """Referring to A's run or workflow fails exactly as referring to one that does not exist."""
    faults = []
    for target in (ROWS[table], {**ROWS[table], **nowhere(table)}):
        with pytest.raises((pg.ForeignKeyViolation, pg.InsufficientPrivilege)) as caught, as_b.transaction():
            insert(as_b, table, B, target)
        faults.append(type(caught.value))
    assert faults[0] is faults[1]


def nowhere(table: str) -> dict[str, Any]:
    assert table in ("triggers", "runs")
    return {"workflow": "nowhere"}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_transaction_that_names_no_tenant_sees_nothing(admin: Any, module_database: Any, role: str) -> None:
    with psycopg.connect(module_database.dsn(role)) as conn:
        name(conn, role, A)
        assert conn.execute("select count(*) from agentflow.runs").fetchone() == (1,)
        conn.commit()
        # After the commit the setting is an empty string, not unset: neither may open anything.
        assert conn.execute("select count(*) from agentflow.runs").fetchone() == (0,)


def test_the_relay_sees_what_is_under_way_and_what_limits_it(admin: Any, module_database: Any) -> None:
    readable = set()
    with psycopg.connect(module_database.dsn("agentflow_relay"), autocommit=True) as conn:
        for table in ROWS:
            try:
                conn.execute(f"select 1 from agentflow.{table}")
                readable.add(table)
            except pg.InsufficientPrivilege:
                continue
    assert readable == {"outbox", "timers", "limits", "gatekeeper", "unsealed", "audit_heads"}


def test_the_keeper_reads_keys_and_no_content(admin: Any) -> None:
    found: dict[str, set[str]] = {}
    for table, column in admin.execute(
        """select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
           where c.relnamespace = 'agentflow'::regnamespace and c.relkind in ('r', 'p') and not a.attisdropped
             and has_column_privilege('agentflow_keeper', c.oid, a.attnum, 'select')"""
    ):
        found.setdefault(table, set()).add(column)
    assert found == KEEPERS


def test_nobody_has_a_right_on_a_partition_or_on_the_doors_but_by_name(admin: Any) -> None:
    rows = admin.execute(
        """select relname, relacl::text from pg_class
           where relnamespace = 'agentflow'::regnamespace and relispartition and relacl is not null"""
    ).fetchall()
    assert rows == []
    entitled = admin.execute(
        """select p.proname, array_agg(r.rolname::text order by r.rolname) from pg_proc p, pg_roles r
           where p.pronamespace = 'agentflow'::regnamespace and p.prosecdef and r.rolname like 'agentflow%'
             and r.rolname <> 'agentflow_owner' and has_function_privilege(r.oid, p.oid, 'execute') group by 1"""
    ).fetchall()
    assert dict(entitled) == {
        "provide_partitions": ["agentflow_engine", "agentflow_keeper", "agentflow_relay"],
        "drop_partition": ["agentflow_keeper"],
    }
    pinned = admin.execute(
        """select proname from pg_proc where pronamespace = 'agentflow'::regnamespace and prosecdef
             and 'search_path=agentflow, pg_temp' = any (proconfig)"""
    ).fetchall()
    assert {name for (name,) in pinned} == DOORS
