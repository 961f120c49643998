"""The commands ``agentflow prune``, ``retention`` and ``archive``. What they need is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from agentflow.terminal.carrying import run, settings
from agentflow.terminal.options import Database, Json, Tenant

retention_app = typer.Typer(help="How long things are kept.", no_args_is_help=True)
archive_app = typer.Typer(help="Runs that were removed (needs AGENTFLOW_ARCHIVE).", no_args_is_help=True)

Operators = Annotated[str, typer.Option("--tenant", help="Another tenant's id (needs the administrator).")]
Week = Annotated[str, typer.Option(help="Only runs that were started in this week, e.g. 2026w31.")]
Age = Annotated[str | None, typer.Option(help="Days, e.g. 90d; forever; default: as the installation says.")]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    tenant: Annotated[str, typer.Option(help="Only rows of this tenant.")] = "",
    before: Annotated[
        str, typer.Option(help="Remove runs that had finished by then (2026-08-01), whatever was set.")
    ] = "",
    archive: Annotated[
        bool, typer.Option("--archive/--no-archive", help="Archive runs first, if AGENTFLOW_ARCHIVE is set.")
    ] = True,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Remove now what has been kept long enough; hosts with the relay do it once a day by themselves."""
    from agentflow.terminal.retention import run_prune

    run(run_prune(settings(), database, tenant, before, dry_run=dry_run, archive=archive, as_json=as_json))


@retention_app.command("show")
def retention_show(tenant: Operators = "", database: Database = "", as_json: Json = False) -> None:
    """Show how long things are kept."""
    from agentflow.terminal.retention import show_retention

    run(show_retention(settings(), database, tenant, as_json=as_json))


@retention_app.command("set")
def retention_set(
    runs: Age = None,
    ledger: Age = None,
    inbox: Age = None,
    parked: Age = None,
    spend: Age = None,
    fixed: Annotated[
        bool | None, typer.Option("--fixed/--free", help="Whether the tenant may change it (operator).")
    ] = None,
    tenant: Operators = "",
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Set how long finished runs, ledger entries, ids of events, parked messages and sums of money are kept."""
    from agentflow.terminal.retention import set_retention

    said = {"runs": runs, "ledger": ledger, "inbox": inbox, "parked": parked, "spend": spend}
    run(set_retention(settings(), database, tenant, said, fixed, as_json=as_json))


@archive_app.command("list")
def archive_list(tenant: Tenant = "", week: Week = "", as_json: Json = False) -> None:
    """List what is in the archive."""
    from agentflow.terminal.archive import list_archive

    list_archive(settings(), tenant, week, as_json=as_json)


@archive_app.command("show")
def archive_show(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    tenant: Tenant = "",
    week: Week = "",
    as_json: Json = False,
) -> None:
    """Find a run in the archive and print it."""
    from agentflow.terminal.archive import show_archived

    show_archived(settings(), run_id, tenant, week, as_json=as_json)
