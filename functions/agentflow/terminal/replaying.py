"""Replaying a run from the command line: with this version's engine, whatever version has decided it.

A recording is all it takes: the run, its workflow's document, its steps and its history, as the API shows them.
Recordings of every kind of run, replayed by the version that is about to be installed, show whether it finishes what
others began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from agentflow.config import Settings
from agentflow.control import shapes
from agentflow.core.plan import Plan
from agentflow.errors import Invalid, Problem, Rejected
from agentflow.store.replay import Divergence, Replay
from agentflow.terminal import output
from agentflow.terminal.client import all_pages, api, call
from agentflow.terminal.running import quoted
from agentflow.wire.document import compile_stored

MAX_BYTES = 256 * 1024 * 1024


class Recording(BaseModel):
    """A run and all it was decided from; ``agentflow`` is the format's name."""

    model_config = ConfigDict(extra="forbid")

    agentflow: Literal["recording/v1"] = "recording/v1"
    run: shapes.Run
    document: dict[str, Any]
    steps: list[shapes.Step]
    history: list[shapes.Line]


async def replay_run(settings: Settings, what: str, save: str, *, as_json: bool) -> bool:
    """Replay a run by id, or a file; whether it came to the same."""
    if is_run(what):
        recording = await record(settings, what)
    elif is_file(what):
        recording = read(Path(what))
    else:
        mend = "give a run's id, or a file that agentflow replay --save has written"
        raise Rejected(f"{what[:80]!r} is neither", code="usage", path="RUN|FILE", mend=mend)
    if save:
        write(Path(save), recording)
    found = replay(recording)
    lines = len(recording.history)
    if as_json:
        said = {"seq": found.seq, "name": found.name, "what": found.what} if found else None
        output.print_json(
            {"run": str(recording.run.id), "lines": lines, "same": found is None, "diverges": said}
        )
    elif found is None:
        print(f"{lines} decisions of {recording.run.workflow}@{recording.run.version} came to the same")
    else:
        print(f"{recording.run.workflow}@{recording.run.version}, {found}")
    return found is None


def replay(recording: Recording) -> Divergence | None:
    """The first decision that comes to something else, None when none does."""
    _, again = replayed(recording)
    run = recording.run
    if again.found is not None or run.finished_at is None:
        return again.found
    if again.status != run.status:
        return Divergence(again.seq, "", "history", f"the run is {run.status}; now it is {again.status}")
    if run.status == "succeeded" and again.output != run.output:
        return Divergence(again.seq, "", "history", f"the run came to {run.output}; now to {again.output}")
    return None


def _see_nothing(plan: Plan, again: Replay, line: shapes.Line) -> None:
    """For who asks only what it came to."""


def replayed(
    recording: Recording, see: Callable[[Plan, Replay, shapes.Line], None] = _see_nothing
) -> tuple[Plan, Replay]:
    """The plan, and the replay as far as it came; ``see`` is called after each line."""
    plan = compile_stored(recording.document)
    attempts = {(step.step, step.attempt): step.model_dump() for step in recording.steps if step.reused is None}
    again = Replay(plan, recording.run.input or {}, attempts)
    try:
        for line in recording.history:
            if not again.line({**line.model_dump(), "hash": bytes.fromhex(line.hash)}):
                break
            see(plan, again, line)
    except (KeyError, ValueError, TypeError) as fault:
        again.found = Divergence(
            again.seq, "", "history", f"it can't be followed: {type(fault).__name__}: {fault}"
        )
    return plan, again


async def record(settings: Settings, run_id: str) -> Recording:
    """The recording of a run, by the API."""
    path = f"/v1/runs/{quoted(run_id)}"
    async with api(settings) as client:
        # The run first: what comes later is at least what it was decided from.
        run = await call(client, "GET", path)
        if run["version"] is None:
            raise Rejected("the run has not been planned yet", code="not_planned", mend="replay it later")
        lines = await all_pages(client, f"{path}/history")
        steps = await all_pages(client, f"{path}/steps")
        asked = {"version": run["version"]}
        workflow = await call(client, "GET", f"/v1/workflows/{quoted(run['workflow'])}", params=asked)
    return _checked({"run": run, "document": workflow["document"], "steps": steps, "history": lines})


def write(path: Path, recording: Recording) -> None:
    """A recording as a file."""
    path.write_bytes(orjson.dumps(recording.model_dump(mode="json"), option=orjson.OPT_INDENT_2))


def read(path: Path) -> Recording:
    """A recording from a file; ``Invalid`` names what is wrong with it."""
    if path.stat().st_size > MAX_BYTES:
        raise Rejected(f"{path} is larger than {MAX_BYTES >> 20} MiB", code="too_large", path=str(path))
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as fault:
        mend = "write one with: agentflow replay RUN --save FILE"
        raise Rejected(f"is not JSON: {fault}", code="bad_recording", path=str(path), mend=mend) from None
    return _checked(content)


def _checked(content: Any) -> Recording:
    try:
        return Recording.model_validate(content)
    except ValidationError as fault:
        raise Invalid(
            [Problem(_path(each["loc"]), each["msg"], "", "bad_recording") for each in fault.errors()[:20]]
        ) from None


def _path(parts: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def is_file(text: str) -> bool:
    """Whether this is a file."""
    return Path(text).is_file()


def is_run(text: str) -> bool:
    """Whether this is a run's id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
