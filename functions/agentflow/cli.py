"""The command ``agentflow``. Commands import what they need when they run: ``--help`` stays quick.

Errors are one line with the mend and exit code 1 (as JSON with --json); wrong usage is exit code 2.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Literal

import typer

from agentflow import __version__
from agentflow.terminal import carrying
from agentflow.terminal.audit import audit_app
from agentflow.terminal.budget_commands import budgets_app, tenant_zone
from agentflow.terminal.importing import import_app
from agentflow.terminal.money_commands import costs, estimate
from agentflow.terminal.options import Database, Json
from agentflow.terminal.pricing_commands import prices_app
from agentflow.terminal.retention_commands import archive_app, prune, retention_app

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
parked_app = typer.Typer(help="Messages that could not be handled.", invoke_without_command=True)
limits_app = typer.Typer(
    help="How much may be in progress at once and start per second.", invoke_without_command=True
)
tenant_app = typer.Typer(help="Tenants (needs the database administrator).", no_args_is_help=True)
key_app = typer.Typer(help="API keys (needs the database administrator).", no_args_is_help=True)
app.add_typer(parked_app, name="parked")
app.add_typer(limits_app, name="limits")
app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(retention_app, name="retention")
app.add_typer(archive_app, name="archive")
app.add_typer(audit_app, name="audit")
app.add_typer(import_app, name="import")
app.add_typer(prices_app, name="prices")
app.add_typer(budgets_app, name="budgets")
tenant_app.command("zone")(tenant_zone)


class Form(Enum):
    """How `agentflow validate` prints."""

    text = "text"
    json = "json"
    github = "github"


RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Scope = Annotated[
    str,
    typer.Argument(metavar="SCOPE", help="tenant, workflow:NAME, model:ALIAS, tool:NAME, model:* or tool:*."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", help="name=value, or name=@file for the content of a file; repeatable."),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"agentflow {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[  # _version is called with it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multi-agent workflows as CloudEvents through small functions."""


# -- the stack ---------------------------------------------------------------------------------------------


@app.command()
def dev(
    sample: Annotated[
        bool, typer.Option("--sample", help="Run the sample workflow and show it live.")
    ] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop when the sample has ended.")] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of the API; 0: a free one.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=16, help="Processes that share work and port, e.g. one per core.")
    ] = None,
) -> None:
    """Start everything here: PostgreSQL, NATS, all functions and the API."""
    from agentflow.terminal.stack import run_dev

    work = run_dev(carrying.settings(), sample=sample, leave=leave, port=port, processes=processes)
    raise typer.Exit(carrying.carry(work))


@app.command()
def serve(
    functions: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FUNCTION...]", help="plan, dispatch, … or all; default: AGENTFLOW_FUNCTION."),
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Take CloudEvents over HTTP; one function.")] = False,
    relay: Annotated[bool, typer.Option("--relay", help="Carry the relay, too.")] = False,
    replica: Annotated[  # for `agentflow dev`, which holds the other end of the input
        bool, typer.Option("--replica", hidden=True, help="Share the port; end when the input does.")
    ] = False,
) -> None:
    """Carry functions until SIGTERM: by JetStream, or with --push over HTTP."""
    carrying.serve(functions or [], push=push, relay=relay, replica=replica)


@app.command("relay")
def relay_command() -> None:
    """Carry the relay: fires timers, sends again what was left behind."""
    carrying.serve([], relay=True)


@app.command()
def bridge() -> None:
    """Carry the bridge: from JetStream to functions over HTTP."""
    carrying.without_rich()
    from agentflow.terminal.stack import run_bridge

    carrying.carry(run_bridge(carrying.settings()))


@app.command()
def migrate(
    database: Database = "",
    passwords: Annotated[
        str, typer.Option(metavar="FILE", help="A pgpass file: the four roles get the passwords that it has for them.")
    ] = "",
) -> None:
    """Bring the database to this version's schema."""
    from agentflow.terminal.administration import run_migrate

    carrying.run(run_migrate(carrying.settings(), database, passwords))


@app.command()
def restored(
    nothing_lost: Annotated[
        bool, typer.Option("--nothing-lost", help="It was moved while nothing worked on it: no call is in doubt.")
    ] = False,
    database: Database = "",
) -> None:
    """Let functions begin on a database that was put back from a backup; once, when the former one is at rest."""
    from agentflow.terminal.administration import run_restored

    carrying.run(run_restored(carrying.settings(), database, nothing_lost=nothing_lost))


@app.command("init")
def init_command(
    folder: Annotated[
        str, typer.Option(help="Where the roles' passwords (pgpass) and the first tenant's key (api_key) go.")
    ],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for PostgreSQL and NATS.")] = 120.0,
    database: Database = "",
) -> None:
    """Make what functions need to start: schema, the roles' passwords, streams, a tenant and its key; once or again."""
    from pathlib import Path

    from agentflow.terminal.administration import run_init

    carrying.run(run_init(carrying.settings(), database, Path(folder), wait))


# -- workflows and runs ------------------------------------------------------------------------------------


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Workflows: YAML, JSON or Python.")],
    form: Annotated[
        Form, typer.Option("--format", help="text; json: an object per file; github: annotations.")
    ] = Form.text,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 on warnings, too.")] = False,
    model_check: Annotated[
        bool, typer.Option("--model-check/--no-model-check", help="Go every way that the plan can go, too.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Check workflow files: errors, warnings, the worst case. Nothing is registered and no server is needed."""
    from agentflow.terminal.validating import validate as validate_files

    if not validate_files(files, form="json" if as_json else form.value, strict=strict, model_check=model_check):
        raise typer.Exit(1)


@app.command()
def fmt(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A workflow: YAML, JSON or Python.")],
    canonical: Annotated[
        bool, typer.Option("--canonical/--short", help="With all short forms written out, or with none.")
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="Into the file; not where comments would be lost.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Print nothing; exit 1 when the file is not so.")] = False,
) -> None:
    """Print a workflow file in one style, with its comments; nothing about what it does changes."""
    from agentflow.terminal.formatting import format_file

    if not format_file(file, canonical=canonical, write=write, check=check):
        raise typer.Exit(1)


@app.command()
def run(
    workflow: Annotated[
        str, typer.Argument(metavar="FILE", help="A workflow file, or a registered name[@version].")
    ],
    given: Inputs = None,
    budget: Annotated[float | None, typer.Option(help="Most it may spend, in dollars.")] = None,
    charge_to: Annotated[
        str | None, typer.Option(metavar="NAME", help="The named budget that it is charged to, too.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key gives the same run.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=9, help="Among your runs that wait: 9 goes first; default: 5.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--detach", help="Follow it to its end, or print its id.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Start a run and follow it live; a file is registered first."""
    from agentflow.terminal.running import run_workflow

    raise typer.Exit(
        carrying.run(
            run_workflow(
                carrying.settings(),
                workflow,
                given or [],
                budget=budget,
                charge_to=charge_to,
                key=key,
                priority=priority,
                wait=wait,
                as_json=as_json,
            )
        )
    )


@app.command()
def plan(
    workflow: Annotated[
        str, typer.Argument(metavar="FILE", help="A workflow file, or a registered name[@version].")
    ],
    goal: Annotated[str, typer.Option(help="What is to be reached with its tasks; default: its own goal.")] = "",
    use: Annotated[str, typer.Option(help="The model that writes the plan.")] = "",
    given: Inputs = None,
    as_json: Json = False,
) -> None:
    """Have a model write a plan for a goal, and print it; nothing else is run."""
    from agentflow.terminal.planning import write_plan

    work = write_plan(carrying.settings(), workflow, goal, use, given or [], as_json=as_json)
    raise typer.Exit(carrying.run(work))


@app.command()
def runs(
    status: Annotated[str | None, typer.Option(help="Only runs in this status.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    from agentflow.terminal.looking import show_runs

    carrying.run(show_runs(carrying.settings(), status=status, workflow=workflow, limit=limit, as_json=as_json))


@app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """Show a run and its steps."""
    from agentflow.terminal.looking import show_run

    carrying.run(show_run(carrying.settings(), run_id, as_json=as_json))


@app.command()
def logs(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the run has ended.")] = False,
    as_json: Json = False,
) -> None:
    """Print a run's history, a line per event."""
    from agentflow.terminal.looking import print_logs

    carrying.run(print_logs(carrying.settings(), run_id, follow=follow, as_json=as_json))


@app.command()
def replay(
    what: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run's id, or a file that --save has written.")],
    save: Annotated[str, typer.Option(help="Write the recording to this file, too.")] = "",
    as_json: Json = False,
) -> None:
    """Decide a run's history again with this version and compare; exits with 1 at the first decision that differs."""
    from agentflow.terminal.replaying import replay_run

    if not carrying.run(replay_run(carrying.settings(), what, save, as_json=as_json)):
        raise typer.Exit(1)


@app.command()
def fork(
    run_id: RunId,
    at: Annotated[
        int, typer.Option(min=1, help="Begin just before this step was started; it and all that follows are done.")
    ],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="name=value, or name=@file: an input or variable; it keeps this value while the decision that"
            " started the step is made again. Repeatable.",
        ),
    ] = None,
    workflow_version: Annotated[  # other versions may have other steps
        str, typer.Option(help="Of the workflow; only `same`: the one that the run has pinned.")
    ] = "same",
    budget: Annotated[float | None, typer.Option(help="Most the new run may spend, in dollars.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key gives the same run.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--detach", help="Follow it to its end, or print its id.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Start a new run from any step of another one; the results of the steps before are reused and cost nothing."""
    from agentflow.terminal.forking import fork_run

    if workflow_version != "same":
        raise typer.BadParameter("a fork keeps its run's version: same", param_hint="--workflow-version")
    work = fork_run(
        carrying.settings(), run_id, at, given or [], budget=budget, key=key, wait=wait, as_json=as_json
    )
    raise typer.Exit(carrying.run(work))


@app.command()
def graph(
    what: Annotated[str, typer.Argument(metavar="FILE|RUN", help="A workflow, or a run's id.")],
    form: Annotated[
        Literal["mermaid", "svg"], typer.Option("--format", help="Text for documents, or a picture.")
    ] = "mermaid",
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Write it to a file.")] = "",
) -> None:
    """Draw a workflow's plan; of a run with where it is."""
    from agentflow.terminal.picturing import draw

    carrying.run(draw(carrying.settings(), what, form, output))


@app.command()
def cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why; kept with the run.")] = "",
    as_json: Json = False,
) -> None:
    """Ask a run to stop."""
    from agentflow.terminal.running import tell_run

    carrying.run(tell_run(carrying.settings(), run_id, "cancel", reason, as_json=as_json))


@app.command()
def pause(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why; kept with the run.")] = "",
    as_json: Json = False,
) -> None:
    """Let a run start nothing more; what is under way goes on."""
    from agentflow.terminal.running import tell_run

    carrying.run(tell_run(carrying.settings(), run_id, "pause", reason, as_json=as_json))


@app.command()
def resume(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why; kept with the run.")] = "",
    as_json: Json = False,
) -> None:
    """Let a paused run go on."""
    from agentflow.terminal.running import tell_run

    carrying.run(tell_run(carrying.settings(), run_id, "resume", reason, as_json=as_json))


@app.command()
def tasks(
    run_id: Annotated[str, typer.Option("--run", help="Only what this run asks.")] = "",
    as_json: Json = False,
) -> None:
    """List what waits for people."""
    from agentflow.terminal.human import show_tasks

    carrying.run(show_tasks(carrying.settings(), run_id, as_json=as_json))


@app.command()
def answer(
    run_id: RunId,
    step: Annotated[int, typer.Argument(min=1, help="The step that asks.")],
    given: Annotated[
        list[str] | None, typer.Option("--result", "-r", help="name=value, or name=@file; repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Who answers.")] = "",
    as_json: Json = False,
) -> None:
    """Answer a step that waits for a person."""
    from agentflow.terminal.human import answer_task

    carrying.run(answer_task(carrying.settings(), run_id, step, given or [], by, as_json=as_json))


@app.command()
def publish(
    event: Annotated[
        str, typer.Argument(metavar="TYPE", help="The CloudEvent's type, or @file with event(s).")
    ],
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, or @file.")] = "",
    source: Annotated[str, typer.Option(help="Where the event comes from.")] = "/agentflow/cli",
    event_id: Annotated[str, typer.Option("--id", help="The same source and id count once.")] = "",
    subject: Annotated[str, typer.Option(help="What the event is about.")] = "",
    as_json: Json = False,
) -> None:
    """Publish a CloudEvent: it starts workflows with a trigger on its type, or feeds steps that wait."""
    from agentflow.terminal.publishing import publish_event

    carrying.run(publish_event(carrying.settings(), event, data, source, event_id, subject, as_json=as_json))


@parked_app.callback()
def parked(context: typer.Context, as_json: Json = False) -> None:
    """List messages that could not be handled, with their reasons."""
    if context.invoked_subcommand is None:
        from agentflow.terminal.looking import show_parked

        carrying.run(show_parked(carrying.settings(), as_json=as_json))


@parked_app.command("retry")
def parked_retry(
    parked_id: Annotated[str, typer.Argument(metavar="ID", help="As listed by: agentflow parked")],
    as_json: Json = False,
) -> None:
    """Give a parked message to its function again."""
    from agentflow.terminal.looking import retry_parked

    carrying.run(retry_parked(carrying.settings(), parked_id, as_json=as_json))


@limits_app.callback()
def limits(context: typer.Context, as_json: Json = False) -> None:
    """List what is limited; what has to wait is `requested` until its turn comes."""
    if context.invoked_subcommand is None:
        from agentflow.terminal.limits import show_limits

        carrying.run(show_limits(carrying.settings(), as_json=as_json))


@limits_app.command("set")
def limits_set(
    scope: Scope,
    concurrency: Annotated[int | None, typer.Option(min=0, help="Most at once; 0: nothing starts.")] = None,
    per_second: Annotated[float | None, typer.Option(help="Most that start, on average.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="Most that start at once after a pause.")] = None,
    weight: Annotated[int, typer.Option(min=1, help="A tenant's share; the operator's to set.")] = 1,
    as_json: Json = False,
) -> None:
    """Limit a scope: runs (tenant, workflow:NAME) or calls (model:ALIAS, tool:NAME). What is not given is unlimited."""
    from agentflow.terminal.limits import set_limit

    carrying.run(
        set_limit(
            carrying.settings(),
            scope,
            concurrency=concurrency,
            per_second=per_second,
            burst=burst,
            weight=weight,
            as_json=as_json,
        )
    )


@limits_app.command("remove")
def limits_remove(scope: Scope, as_json: Json = False) -> None:
    """Limit a scope no longer; what waited for it goes on."""
    from agentflow.terminal.limits import remove_limit

    carrying.run(remove_limit(carrying.settings(), scope, as_json=as_json))


# -- administration ----------------------------------------------------------------------------------------


@tenant_app.command("create")
def tenant_create(
    name: str,
    limit_usd: Annotated[
        float | None, typer.Option(min=0, help="Most it may ever spend, in dollars.")
    ] = None,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Create a tenant; prints its id."""
    from agentflow.terminal.administration import run_create_tenant

    carrying.run(run_create_tenant(carrying.settings(), database, name, limit_usd, as_json=as_json))


@key_app.command("create")
def key_create(
    tenant: Annotated[str, typer.Option(help="The tenant's id; default: the embedded stack's tenant.")] = "",
    label: Annotated[str, typer.Option(help="What the key is for.")] = "",
    admin: Annotated[bool, typer.Option("--admin", help="It may also correct what was spent.")] = False,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """Create an API key; it is printed once and cannot be shown again."""
    from agentflow.terminal.administration import run_create_key

    carrying.run(run_create_key(carrying.settings(), database, tenant, label, admin=admin, as_json=as_json))


app.command("prune")(prune)
app.command("costs")(costs)
app.command("estimate")(estimate)


# -- the frame ---------------------------------------------------------------------------------------------


def main() -> None:
    """Run the command line; every error that is ours is one line on stderr and exit code 1."""
    carrying.guarded(app)


if __name__ == "__main__":
    main()
