"""The audit chain from the command line: verifying it, and showing what was sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.carrying import run, settings
from agentflow.terminal.options import Json

if TYPE_CHECKING:
    from agentflow.store.audit import Head, Verification

audit_app = typer.Typer(help="What has happened, and that nobody has changed it.", no_args_is_help=True)
SHOWN = 20
"""Findings that are printed for people; machines get all."""


@audit_app.command("verify")
def verify(
    tenant: Annotated[str, typer.Option(help="Only this tenant's chain; default: all.")] = "",
    known: Annotated[
        list[str] | None,
        typer.Option(
            help="NUMBER:LINK of an entry as noted elsewhere, which must still be there (needs --tenant)."
        ),
    ] = None,
    database: Annotated[
        str,
        typer.Option(
            help="URL that logs in as the administrator; default: AGENTFLOW_DATABASE_URL as postgres."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Verify that every run, step, ledger entry and deed is as it was written. Needs AGENTFLOW_AUDIT_KEY; exits with 1
    when anything was changed, deleted, moved, cut off or rewritten."""
    if not run(_verify(settings(), database, tenant, known or [], as_json=as_json)):
        raise typer.Exit(1)


@audit_app.command("list")
def list_entries(as_json: Json = False) -> None:
    """List what was sealed of the key's tenant."""
    run(_list(settings(), as_json=as_json))


async def _verify(settings: Settings, database: str, tenant: str, known: list[str], *, as_json: bool) -> bool:
    from agentflow.store.audit import tenants, verify
    from agentflow.store.chain import ChainKeys
    from agentflow.terminal.administration import roles
    from agentflow.terminal.retention import parse_tenant

    keys = ChainKeys(settings.audit_key)
    heads = [_head(text) for text in known]
    if heads and not tenant:
        mend = "give --tenant ID, too"
        raise Rejected("an entry is known of one tenant's chain", code="usage", path="--known", mend=mend)
    only: list[UUID] = [parse_tenant(tenant)] if tenant else []
    async with roles(settings, database) as (engine, _, admin):
        asked = only or await tenants(admin)
        found = [await verify(engine, keys, each, known=heads) for each in asked]
    if as_json:
        output.print_json([_plain(each) for each in found])
    else:
        _show(found)
    return not any(each.findings for each in found)


async def _list(settings: Settings, *, as_json: bool) -> None:
    from agentflow.terminal.client import all_pages, api

    async with api(settings) as client:
        items = await all_pages(client, "/v1/audit")
    if as_json:
        output.print_json(items)
        return
    rows = [(item["n"], item["at"][:19], item["kind"], _said(item["data"]), item["link"]) for item in items]
    output.print_table(("entry", "sealed at", "kind", "what", "link"), rows, "nothing has been sealed")


def _head(text: str) -> Head:
    from agentflow.store.audit import Head

    number, _, link = text.partition(":")
    if (
        not number.isdecimal()
        or len(number) > 9
        or len(link) != 32
        or set(link.lower()) - set("0123456789abcdef")
    ):
        mend = "write NUMBER:LINK, as agentflow audit verify prints them"
        raise Rejected(f"{text[:60]!r} is no entry", code="usage", path="--known", mend=mend)
    return Head(int(number), link)


def _said(data: dict[str, Any]) -> str:
    if "runs" in data:
        return f"{data['runs']} runs" if data["runs"] is not None else "runs that have been removed"
    row = data.get("row", {})
    what = " ".join(
        str(row[name]) for name in ("name", "version", "scope", "key_id", "label") if row.get(name)
    )
    return f"{what} by {data['by']}" if "by" in data else what


def _plain(done: Verification) -> dict[str, Any]:
    head = {"number": done.head.number, "link": done.head.link} if done.head else None
    return {
        "tenant": str(done.tenant), "ok": not done.findings, "head": head, "entries": done.entries, "runs": done.runs,
        "rows": done.rows, "uncovered": done.uncovered, "pending": done.pending, "findings": done.findings,
    }  # fmt: skip


def _show(found: list[Verification]) -> None:
    rows = [
        (
            done.tenant,
            *(f"{count:,}" for count in (done.entries, done.runs, done.rows, done.uncovered, done.pending)),
            f"{done.head.number}:{done.head.link}" if done.head else "",
        )
        for done in found
    ]
    titles = ("tenant", "entries", "runs", "rows", "older runs", "not sealed", "head")
    output.print_table(titles, rows, "there is no tenant")
    for done in found:
        for finding in done.findings[:SHOWN]:
            print(f"{done.tenant}: {finding}")
        if len(done.findings) > SHOWN:
            print(f"{done.tenant}: and {len(done.findings) - SHOWN} more; see --json")
    count = sum(len(done.findings) for done in found)
    print("nothing was changed" if not count else f"{count} findings")
