"""What is kept, from the command line: setting it, removing the rest by hand, and finding it in the archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aged import DAY, NOW, Past

from agentflow.runtime import sweep
from agentflow.store.api_keys import parse

from .conftest import Command, Served, run
from .test_main import one_line


@pytest.fixture
def past(database: Any, environment: pytest.MonkeyPatch) -> Iterator[Past]:
    """A database of this test's own, and the command line of its operator."""
    environment.setattr(sweep, "REST", 0.0)
    made = Past(database)
    yield made
    made.close()


async def test_a_tenant_sets_and_sees_what_it_keeps(agentflow: Command) -> None:
    assert "as the installation says" in (await agentflow("retention", "show")).out
    made = await agentflow("retention", "set", "--runs", "90d", "--inbox", "7d", "--json")
    assert made.json == {"runs": "90d", "ledger": None, "inbox": "7d", "parked": None, "spend": None, "fixed": False}
    await agentflow("retention", "set", "--runs", "forever", "--inbox", "default")
    shown = (await agentflow("retention", "show", "--json")).json
    assert shown == {"runs": "forever", "ledger": None, "inbox": None, "parked": None, "spend": None, "fixed": False}


async def test_what_is_no_age_is_refused(agentflow: Command) -> None:
    one_line(await agentflow("retention", "set", "--runs", "90"), "--runs", "90d")
    one_line(await agentflow("retention", "set", "--fixed"), "operator", "--tenant")


async def test_the_operator_fixes_what_a_tenant_keeps(agentflow: Command, served: Served, key: str) -> None:
    owner = parse(key)
    assert owner is not None
    operator = ("--tenant", str(owner.tenant), "--database", served.database.admin)
    await agentflow("retention", "set", "--runs", "400d", "--fixed", *operator)
    one_line(await agentflow("retention", "set", "--runs", "1d"), "fixed")
    assert "fixed by the operator" in (await agentflow("retention", "show")).out
    await agentflow("retention", "set", "--free", *operator)
    assert (await agentflow("retention", "set", "--runs", "1d", "--json")).json["runs"] == "1d"
    unknown = ("--tenant", str(uuid4()), "--database", served.database.admin)
    one_line(await agentflow("retention", "set", "--runs", "1d", *unknown), "no tenant", "tenant create")
    one_line(await agentflow("retention", "show", "--tenant", "x"), "--tenant", "tenant create")


async def test_a_dry_run_says_what_would_go_and_prune_removes_it(past: Past) -> None:
    tenant, other = past.tenant(runs="30d"), past.tenant()
    past.runs(tenant, 50, count=12)
    past.runs(other, 50)
    database = ("--database", past.database.admin)
    would = await run("prune", "--dry-run", *database)
    assert str(tenant) in would.out and "12" in would.out and str(other) not in would.out
    assert past.one("select count(*) from agentflow.runs") == 13
    did = (await run("prune", "--json", *database)).json
    assert did["complete"] and not did["dry_run"]
    (line,) = did["tenants"]
    assert {name: line[name] for name in ("tenant", "runs", "steps", "history")} == {
        "tenant": str(tenant), "runs": 12, "steps": 24, "history": 24
    }  # fmt: skip
    assert past.column("select distinct tenant_id from agentflow.steps") == [other]
    assert "nothing was removed" in (await run("prune", *database)).out


async def test_one_tenant_and_a_day_can_be_named(past: Past) -> None:
    tenant, other = past.tenant(), past.tenant()
    (old,), (young,), (others,) = past.runs(tenant, 50), past.runs(tenant, 10), past.runs(other, 50)
    day = (NOW - 20 * DAY).date().isoformat()
    named = ("--tenant", str(tenant), "--before", day, "--database", past.database.admin)
    assert (await run("prune", *named)).code == 0
    assert past.rows_of(old)["runs"] == past.rows_of(old)["steps"] == 0
    assert past.rows_of(young)["steps"] == past.rows_of(others)["steps"] == 2
    one_line(await run("prune", "--before", "yesterday"), "--before", "2026-08-01")
    one_line(await run("prune", "--before", "2999-01-01"), "future")
    one_line(await run("prune", "--tenant", "x"), "--tenant")


async def test_what_the_hosts_archive_is_not_removed_without(
    past: Past, environment: pytest.MonkeyPatch
) -> None:
    past.conn.execute(
        "insert into agentflow.upkeep (tenant_id, chore, detail) values (%s, 'archive', 's3://cold/x')",
        ("00000000-0000-0000-0000-000000000000",),
    )
    past.runs(past.tenant(runs="30d"), 50)
    database = ("--database", past.database.admin)
    one_line(await run("prune", *database), "s3://cold/x", "AGENTFLOW_ARCHIVE", "--no-archive")
    assert past.one("select count(*) from agentflow.runs") == 1
    assert (await run("prune", "--no-archive", *database)).code == 0
    assert past.one("select count(*) from agentflow.runs") == 0


async def test_an_archived_run_is_found_and_printed(
    past: Past, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("AGENTFLOW_ARCHIVE", f"file://{tmp_path}/archive")
    tenant = past.tenant(runs="30d")
    runs = past.runs(tenant, 50, count=3, given='{"question": "what?"}')
    assert "archived:" in (await run("prune", "--database", past.database.admin)).out
    listed = await run("archive", "list", "--tenant", str(tenant))
    assert f"runs/{tenant}/" in listed.out
    (manifest,) = (await run("archive", "list", "--tenant", str(tenant), "--json")).json
    assert sorted(manifest["runs"]) == sorted(map(str, runs))
    shown = await run("archive", "show", str(runs[1]), "--tenant", str(tenant))
    assert str(runs[1]) in shown.out and "what?" in shown.out and "succeeded" in shown.out
    rows = (await run("archive", "show", str(runs[1]), "--tenant", str(tenant), "--json")).json
    assert {table: len(found) for table, found in rows.items()} == {
        "runs": 1, "steps": 2, "history": 2, "ledger": 1
    }  # fmt: skip
    one_line(await run("archive", "show", str(runs[1])), "no run", "--tenant")  # of the local tenant
    one_line(await run("archive", "show", "x"), "RUN")
    assert (await run("archive", "list")).out.strip() == "nothing is archived"
    environment.delenv("AGENTFLOW_ARCHIVE")
    one_line(await run("archive", "list"), "AGENTFLOW_ARCHIVE", "s3://bucket/prefix")
