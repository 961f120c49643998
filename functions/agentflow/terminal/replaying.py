"""Replaying a run from the command line: with this version's engine, whatever version has decided it.

A recording is all it takes: the run, its workflow's document, its steps and its history, as the API shows them.
Recordings of every kind of run, replayed by the version that is about to be installed, show whether it finishes what
others began.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from agentflow.config import Settings
from agentflow.control import shapes
from agentflow.errors import Invalid, Problem, Rejected
from agentflow.store.replay import Divergence, Replay
from agentflow.terminal import output
from agentflow.terminal.client import api, call
from agentflow.terminal.running import quoted
from agentflow.wire.document import compile_document

MAX_BYTES = 256 * 1024 * 1024
PAGE = 100


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
    recording = read(Path(what)) if _is_file(what) else await record(settings, what)
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
    plan = compile_document(recording.document)
    attempts = {(step.step, step.attempt): step.model_dump() for step in recording.steps}
    again = Replay(plan, recording.run.input or {}, attempts)
    try:
        found = again.run(
            {**line.model_dump(), "hash": bytes.fromhex(line.hash)} for line in recording.history
        )
    except (KeyError, ValueError, TypeError) as fault:
        said = f"the history can't be followed: {type(fault).__name__}: {fault}"
        return Divergence(again.seq, "", "history", said)
    if found is not None:
        return found
    run = recording.run
    if run.finished_at is not None and again.status != run.status:
        return Divergence(again.seq, "", "history", f"the run is {run.status}; now it is {again.status}")
    if run.status == "succeeded" and again.output != run.output:
        return Divergence(again.seq, "", "history", f"the run came to {run.output}; now to {again.output}")
    return None


async def record(settings: Settings, run_id: str) -> Recording:
    """The recording of a run, by the API."""
    path = f"/v1/runs/{quoted(run_id)}"
    async with api(settings) as client:
        # The run first: what comes later is at least what it was decided from.
        run = await call(client, "GET", path)
        if run["version"] is None:
            raise Rejected("the run has not been planned yet", code="not_planned", mend="replay it later")
        lines = await _all(client, f"{path}/history")
        steps = await _all(client, f"{path}/steps")
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


async def _all(client: Any, path: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": PAGE}
    while True:
        page = await call(client, "GET", path, params=params)
        items += page["items"]
        if not page["next"]:
            return items
        params["cursor"] = page["next"]


def _is_file(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        if Path(text).is_file():
            return True
        mend = "give a run's id, or a file that agentflow replay --save has written"
        raise Rejected(f"{text[:80]!r} is neither", code="usage", path="RUN|FILE", mend=mend) from None
    return False
