"""The commands ``agentflow prices``. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agentflow.terminal.carrying import run, settings
from agentflow.terminal.options import Database, Json, Tenant

prices_app = typer.Typer(help="What models and tools cost a tenant.", no_args_is_help=True)

Scope = Annotated[str, typer.Argument(metavar="SCOPE", help="model:ALIAS, model:NAME or tool:NAME.")]


@prices_app.command("list")
def prices_list(as_json: Json = False) -> None:
    """List what models and tools cost the tenant whose key this is."""
    from agentflow.terminal.pricing import list_prices

    run(list_prices(settings(), as_json=as_json))


@prices_app.command("show")
def prices_show(scope: Scope, as_json: Json = False) -> None:
    """Show what a model or a tool costs the tenant whose key this is, and what it was told before."""
    from agentflow.terminal.pricing import show_price

    run(show_price(settings(), scope, as_json=as_json))


@prices_app.command("set")
def prices_set(
    scope: Scope,
    input_usd: Annotated[str, typer.Option("--input", help="US dollars per million tokens of input.")] = "",
    output_usd: Annotated[str, typer.Option("--output", help="The same for output.")] = "",
    cache_read: Annotated[str, typer.Option(help="The same for input read from a cache; else as input.")] = "",
    cache_write: Annotated[str, typer.Option(help="The same for input written to a cache; else as input.")] = "",
    per_call: Annotated[str, typer.Option(help="US dollars for each call.")] = "",
    per_second: Annotated[str, typer.Option(help="US dollars for each second of a call.")] = "",
    file: Annotated[Path | None, typer.Option(help="A card as YAML or JSON, with tiers; see models/card.py.")] = None,
    tenant: Tenant = "",
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Tell a tenant what a model or tool costs it, as a whole; runs that are planned from then on pay it.

    Needs the database administrator: whoever sets prices decides how far a budget goes.
    """
    from agentflow.terminal.pricing import set_price

    given = {
        "input_usd_per_mtok": input_usd,
        "output_usd_per_mtok": output_usd,
        "cache_read_usd_per_mtok": cache_read,
        "cache_write_usd_per_mtok": cache_write,
        "usd_per_call": per_call,
        "usd_per_second": per_second,
    }
    said = {name: usd for name, usd in given.items() if usd}
    run(set_price(settings(), database, tenant, scope, said, file, as_json=as_json))


@prices_app.command("remove")
def prices_remove(scope: Scope, tenant: Tenant = "", database: Database = "", as_json: Json = False) -> None:
    """Take back what a tenant was told: it pays what everybody does (needs the database administrator)."""
    from agentflow.terminal.pricing import remove_price

    run(remove_price(settings(), database, tenant, scope, as_json=as_json))
