"""The archive from the command line: what is in it, and one run out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from agentflow.archive import MEND, open_archive
from agentflow.archive.format import find_run, manifests
from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.progress import named
from agentflow.terminal.retention import parse_tenant

if TYPE_CHECKING:
    from agentflow.archive import Archive


def list_archive(settings: Settings, tenant: str, week: str, *, as_json: bool) -> None:
    """List what the archive holds of a tenant, an object per line."""
    found = list(manifests(_archive(settings), _tenant(tenant), week))
    if as_json:
        output.print_json([manifest.json() for manifest in found])
        return
    rows = [
        (
            manifest.object, len(manifest.runs), manifest.counts.get("steps", 0), manifest.first[:19],
            manifest.last[:19], f"{manifest.bytes:,}",
        )
        for manifest in found
    ]  # fmt: skip
    output.print_table(("object", "runs", "steps", "first", "last", "bytes"), rows, "nothing is archived")


def show_archived(settings: Settings, run_id: str, tenant: str, week: str, *, as_json: bool) -> None:
    """Print an archived run: its row, steps, history and ledger."""
    try:
        run = UUID(run_id)
    except ValueError:
        raise Rejected("is not a run's id", code="bad_run", path="RUN", mend="give the run's UUID") from None
    rows = find_run(_archive(settings), _tenant(tenant), run, week)
    if rows is None:
        mend = "name its tenant with --tenant, or leave --week out"
        raise Rejected(f"the archive has no run {run} of this tenant", code="not_found", mend=mend)
    if as_json:
        output.print_json(rows)
        return
    _show(rows)


def _show(rows: dict[str, list[dict[str, Any]]]) -> None:
    from rich.json import JSON

    (run,) = rows["runs"]
    out = output.console()
    out.print(
        f"{run['workflow']}@{run['version']}  {run['status']}  {run['run_id']}", markup=False, soft_wrap=True
    )
    steps = [
        (step["step"], step["attempt"], named(step["task"]), step["kind"], step["status"], step["cost_micro"])
        for step in rows.get("steps", [])
    ]
    output.print_table(("step", "attempt", "task", "kind", "status", "micro-dollars"), steps, "no steps")
    out.print(f"{len(rows.get('history', []))} history lines, {len(rows.get('ledger', []))} ledger entries")
    for name in ("input", "output", "error"):
        if run[name]:
            out.print(f"{name}:", markup=False)
            out.print(JSON.from_data(run[name]), soft_wrap=True)


def _archive(settings: Settings) -> Archive:
    archive = open_archive(
        settings.archive, endpoint=settings.archive_endpoint, encryption=settings.archive_encryption
    )
    if archive is None:
        raise Rejected("no archive is set", code="no_archive", path="AGENTFLOW_ARCHIVE", mend=MEND)
    return archive


def _tenant(text: str) -> UUID:
    if text:
        return parse_tenant(text)
    from agentflow.runtime.embedded import LOCAL_TENANT

    return LOCAL_TENANT
