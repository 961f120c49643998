"""The commands ``agentflow costs`` and ``estimate``. What they need is imported when they run."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from agentflow.terminal.carrying import run, settings
from agentflow.terminal.options import Json

Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", help="name=value, or name=@file for the content of a file; repeatable."),
]


class By(Enum):
    """What is added up."""

    tenant = "tenant"
    workflow = "workflow"
    agent = "agent"
    model = "model"
    tool = "tool"
    step = "step"
    budget = "budget"


class Period(Enum):
    """Over what time."""

    day = "day"
    month = "month"
    total = "total"


def costs(
    by: Annotated[By, typer.Option(help="What to add up; step: each task of each workflow.")] = By.workflow,
    period: Annotated[
        Period | None, typer.Option(help="The last 31 days, the last 12 months or all; with --from or --to: all.")
    ] = None,
    since: Annotated[str, typer.Option("--from", metavar="DAY", help="First day, e.g. 2026-11-01.")] = "",
    until: Annotated[str, typer.Option("--to", metavar="DAY", help="The day after the last one.")] = "",
    workflow: Annotated[str, typer.Option(help="Only of this workflow.")] = "",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with the columns of FOCUS.")] = False,
) -> None:
    """Report what was spent, and how it compares with what was expected."""
    from agentflow.terminal.costs import show_costs

    said = period.value if period else ""
    run(show_costs(settings(), by.value, said, since, until, workflow, as_json=as_json, as_csv=as_csv))


def estimate(
    workflow: Annotated[
        str, typer.Argument(metavar="FILE", help="A workflow file, or a registered name[@version].")
    ],
    given: Inputs = None,
    budget: Annotated[float | None, typer.Option(help="Most it may spend, in dollars.")] = None,
    charge_to: Annotated[
        str | None, typer.Option(metavar="NAME", help="The named budget that it would be charged to, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a run may cost, without running it: a file by its plan, a registered one also by what was seen of it."""
    from agentflow.terminal.estimating import show_estimate

    run(show_estimate(settings(), workflow, given or [], budget, charge_to, as_json=as_json))
