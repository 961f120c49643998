"""Options that several commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Database = Annotated[
    str,
    typer.Option(help="URL that logs in as the administrator; default: AGENTFLOW_DATABASE_URL as postgres."),
]
Tenant = Annotated[str, typer.Option("--tenant", help="The tenant's id; default: the embedded stack's tenant.")]
