"""Retention from the command line: what is kept for how long, and removing the rest by hand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentflow.config import Settings
from agentflow.core.retention import Ages, parse_age
from agentflow.errors import Rejected, RetryLater
from agentflow.terminal import output
from agentflow.terminal.administration import admin_dsn, roles
from agentflow.terminal.client import api, call

if TYPE_CHECKING:
    from agentflow.runtime.sweep import Report

KINDS = Ages._fields
TABLES = ("runs", "steps", "history", "ledger", "inbox", "parked", "blobs", "spend", "run_spend")
DEFAULT = "default"
"""What takes a tenant's own word back: as the installation says."""


async def run_prune(
    settings: Settings,
    database: str,
    tenant: str,
    before: str,
    *,
    dry_run: bool,
    archive: bool,
    as_json: bool,
) -> None:
    """Remove now what has been kept long enough, or say what would go."""
    from agentflow.observe import logs
    from agentflow.runtime.pruning import prune
    from agentflow.runtime.retention import sweep_of
    from agentflow.store.retention import keeping

    logs.configure("warning", sys.stderr)  # stdout is for the report
    only, until = parse_tenant(tenant) if tenant else None, parse_before(before)
    async with roles(settings, database) as (engine, keeper, _), keeping(keeper) as store:
        now, leads = await store.lead()
        if not leads and not dry_run:
            raise RetryLater("another process is at it", after=60.0, code="busy")
        hosts = await store.last_done("archive")
        if archive and not settings.archive and hosts is not None and hosts[1]:
            said = f"the hosts of this installation archive to {hosts[1]} before they remove anything"
            mend = "set it here, too, or say --no-archive"
            raise Rejected(said, code="no_archive", path="AGENTFLOW_ARCHIVE", mend=mend)
        if not archive:
            settings = replace(settings, archive="")
        forever = asyncio.get_running_loop().time() + 10**9
        async with sweep_of(settings, store, engine, now, forever) as sweep:
            # By hand nobody waits for a week to be over.
            by_hand = replace(sweep, only=only, before=until, dry=dry_run, patience=timedelta(0))
            report = await prune(by_hand)
    if as_json:
        output.print_json({"dry_run": dry_run, **report.json()})
    else:
        _show(report, dry_run)


async def show_retention(settings: Settings, database: str, tenant: str, *, as_json: bool) -> None:
    """Show what is set: for the key's own tenant, or as the operator for any."""
    if tenant:
        from agentflow.store.ages import read_ages

        async with admin_dsn(settings, database) as dsn:
            _print(await read_ages(dsn, parse_tenant(tenant)), as_json=as_json)
        return
    async with api(settings) as client:
        _print(await call(client, "GET", "/v1/retention"), as_json=as_json)


async def set_retention(
    settings: Settings,
    database: str,
    tenant: str,
    said: Mapping[str, str | None],
    fixed: bool | None,
    *,
    as_json: bool,
) -> None:
    """Set what is given and leave the rest: for the key's own tenant, or as the operator for any."""
    for kind, text in said.items():
        if text not in (None, DEFAULT):
            parse_age(str(text), f"--{kind}")
    if tenant:
        from agentflow.store.ages import read_ages, write_ages

        async with admin_dsn(settings, database) as dsn:
            now = await read_ages(dsn, parse_tenant(tenant))
            stays = bool(now["fixed"]) if fixed is None else fixed
            made = await write_ages(dsn, parse_tenant(tenant), _changed(now, said), fixed=stays)
        _print(made, as_json=as_json)
        return
    if fixed is not None:
        mend = "give --tenant ID"
        raise Rejected("only the operator fixes what a tenant keeps", code="usage", path="--fixed", mend=mend)
    async with api(settings) as client:
        now = await call(client, "GET", "/v1/retention")
        made = await call(client, "PUT", "/v1/retention", json=_changed(now, said))
    _print(made, as_json=as_json)


def parse_tenant(text: str) -> UUID:
    """A tenant's id from the command line."""
    try:
        return UUID(text)
    except ValueError:
        mend = "give the id that agentflow tenant create printed"
        raise Rejected("is not a tenant's id", code="bad_tenant", path="--tenant", mend=mend) from None


def parse_before(text: str) -> datetime | None:
    """A day or a time in the past, in UTC where it does not say; None for nothing."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        mend = "write 2026-08-01 or 2026-08-01T12:00:00+02:00"
        raise Rejected(f"{text[:40]!r} is no date", code="bad_date", path="--before", mend=mend) from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if found > datetime.now(UTC):
        raise Rejected("is in the future", code="bad_date", path="--before", mend="name a time that is over")
    return found


def _changed(now: Mapping[str, Any], said: Mapping[str, str | None]) -> dict[str, str | None]:
    kept = {kind: now[kind] if said.get(kind) is None else said[kind] for kind in KINDS}
    return {kind: None if text == DEFAULT else text for kind, text in kept.items()}


def _print(ages: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json({kind: ages[kind] for kind in (*KINDS, "fixed")})
        return
    rows = [(kind, ages[kind] or "as the installation says") for kind in KINDS]
    output.print_table(("kept", "for"), rows, "")
    if ages["fixed"]:
        print("fixed by the operator")


def _show(report: Report, dry_run: bool) -> None:
    rows = [
        (tenant, *(f"{counts[table]:,}" for table in TABLES), _size(report.bytes[tenant]))
        for tenant, counts in sorted(report.rows.items())
    ]
    empty = "nothing to remove" if dry_run else "nothing was removed"
    output.print_table(("tenant", *TABLES, "about"), rows, empty if not report.dropped else "")
    verb = "would be dropped" if dry_run else "dropped"
    for week in report.dropped:
        print(f"{week.name} {verb}: {_size(week.bytes)}")
    if report.archived_bytes:
        print(f"archived: {_size(report.archived_bytes)}")
    if not report.complete:
        print("something was in use and stays until the next time")


def _size(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
