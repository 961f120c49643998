"""The commands ``agentflow budgets`` and ``agentflow tenant zone``. What they need is imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from agentflow.terminal.carrying import run, settings
from agentflow.terminal.options import Database, Json, Tenant

budgets_app = typer.Typer(help="What may be spent: per day, month or in total.", invoke_without_command=True)

Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="tenant, workflow:NAME or budget:NAME.")]
Period = Annotated[str, typer.Option(help="day, month or total: calendar days and months of the tenant's zone.")]
Dollars = Annotated[float | None, typer.Option(min=0, help="Most it may spend in the period, in dollars.")]


@budgets_app.callback()
def budgets(context: typer.Context, as_json: Json = False) -> None:
    """List budgets: limit, spent, held, remaining, reset time."""
    if context.invoked_subcommand is None:
        budgets_list(as_json)


@budgets_app.command("list")
def budgets_list(as_json: Json = False) -> None:
    """List budgets: limit, spent, held, remaining, reset time."""
    from agentflow.terminal.budgets import show_budgets

    run(show_budgets(settings(), "", as_json=as_json))


@budgets_app.command("show")
def budgets_show(scope: Scope, as_json: Json = False) -> None:
    """Show one scope's budgets."""
    from agentflow.terminal.budgets import show_budgets

    run(show_budgets(settings(), scope, as_json=as_json))


@budgets_app.command("set")
def budgets_set(
    scope: Scope,
    usd: Dollars = None,
    period: Period = "total",
    soft: Annotated[
        float | None, typer.Option(min=0, help="Tell (budget.warning) once so much is spent, in dollars.")
    ] = None,
    thaw: Annotated[
        bool, typer.Option("--thaw", help="Admit again after a provider had billed more than was held.")
    ] = False,
    tenant: Tenant = "",
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Set what a scope may spend in a period, as a whole: without --usd it is only counted. What the period has spent
    by now counts. Needs the administrator."""
    from agentflow.terminal.budgets import run_set_budget

    work = run_set_budget(settings(), database, tenant, scope, period, usd, soft, thaw=thaw, as_json=as_json)
    run(work)


@budgets_app.command("remove")
def budgets_remove(
    scope: Scope, period: Period = "total", tenant: Tenant = "", database: Database = "", as_json: Json = False
) -> None:
    """Limit a scope no longer in a period. Needs the administrator."""
    from agentflow.terminal.budgets import run_remove_budget

    run(run_remove_budget(settings(), database, tenant, scope, period, as_json=as_json))


@budgets_app.command("correct")
def budgets_correct(
    usd: Annotated[str, typer.Option(help="Dollars that were spent besides; negative: given back, e.g. -12.50.")],
    reason: Annotated[str, typer.Option(help="Why, e.g. the number of the invoice.")],
    run_id: Annotated[str, typer.Option("--run", help="The run; without it the scope is corrected.")] = "",
    step: Annotated[int | None, typer.Option(min=1, help="The run's step whose call it is about.")] = None,
    scope: Annotated[str, typer.Option(help="tenant (the default), workflow:NAME or budget:NAME.")] = "",
    key: Annotated[str, typer.Option(help="Idempotency key: the same key counts once.")] = "",
    as_json: Json = False,
) -> None:
    """Correct what was spent, as an invoice or a refund says otherwise. Needs an administrator's API key."""
    from agentflow.terminal.correcting import run_correct

    run(run_correct(settings(), usd, reason, run_id, step, scope, key, as_json=as_json))


@budgets_app.command("corrections")
def budgets_corrections(as_json: Json = False) -> None:
    """List what was corrected, the newest first."""
    from agentflow.terminal.correcting import show_corrections

    run(show_corrections(settings(), as_json=as_json))


def tenant_zone(
    zone: Annotated[str, typer.Argument(metavar="ZONE", help="A time zone, e.g. Europe/Berlin.")],
    tenant: Tenant = "",
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Set the zone whose days and months a tenant's budgets are for."""
    from agentflow.terminal.budgets import run_set_zone

    run(run_set_zone(settings(), database, tenant, zone, as_json=as_json))
