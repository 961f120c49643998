"""``agentflow graph``: a workflow's plan as a picture, or a run's, with where it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from agentflow.config import Settings
from agentflow.core.plan import Plan
from agentflow.errors import Rejected
from agentflow.picture.diagram import Mark
from agentflow.picture.position import Trail
from agentflow.picture.printing import Format, picture
from agentflow.terminal.loading import compile_file, is_file

if TYPE_CHECKING:
    from agentflow.control.shapes import Line
    from agentflow.store.replay import Replay


async def draw(settings: Settings, what: str, form: Format, output: str) -> None:
    """Print the picture of a document's plan, or of a run's by its id, or write it to the file ``output``."""
    from agentflow.terminal.replaying import is_run

    if is_run(what):
        drawn = picture(*await _run(settings, what, form))
    elif is_file(what):
        drawn = picture(compile_file(what), form)
    else:
        mend = "give a workflow's file, or a run's id"
        raise Rejected(f"{what[:80]!r} is neither", code="usage", path="FILE|RUN", mend=mend)
    if output:
        _write(Path(output), drawn)
    else:
        sys.stdout.write(drawn.decode())


def _write(path: Path, drawn: bytes) -> None:
    try:
        path.write_bytes(drawn)
    except OSError as fault:
        raise Rejected(f"cannot be written: {fault.strerror}", code="usage", path=str(path)) from None


async def _run(settings: Settings, run: str, form: Format) -> tuple[Plan, Format, Mapping[str, Mark]]:
    """The plan of a run and where the run is, decided again from its history."""
    from agentflow.terminal.replaying import record, replayed

    recording = await record(settings, run)
    trail = Trail()

    def see(plan: Plan, again: Replay, line: Line) -> None:
        trail.see(plan, again.state, [each["step"] for each in line.data.get("started", ())])

    plan, _ = replayed(recording, see)
    outcomes = {step.step: step.status for step in recording.steps}  # of the last attempt: they come in order
    return plan, form, trail.marks(plan, outcomes)
