"""Handlers: start runs, look at them, cancel and signal them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4, uuid5

import orjson
from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import SMALL, idempotency_key, read_json, read_query
from agentflow.control.budgets import named
from agentflow.control.call import Call, answer, no_run, page
from agentflow.control.estimates import before, micro
from agentflow.control.files import check_out
from agentflow.control.fitting import misfits
from agentflow.control.waiting import ended
from agentflow.core.fair import DEFAULT
from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.planner import check_input, check_values
from agentflow.core.run import TERMINAL, child_id
from agentflow.errors import Conflict, Invalid, Problem, Rejected
from agentflow.store.control import RunKey

MAX_REQUEST = 16 * 1024 * 1024
"""Most bytes of POST /v1/runs: files come along in the input."""
MAX_INPUT = 768 * 1024
"""Most bytes of an input without its files: it travels in one event of at most 1 MiB."""
MAX_SIGNAL = 256 * 1024
MAX_WAIT_S = 60.0
# What the planner says of a step may not be said from outside.
STEP_EVENTS = frozenset({"done", "failed", "timeout"})

Submit = Callable[[UUID, str], Awaitable[dict[str, Any]]]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_SIGNAL = re.compile(r"[a-z][a-z0-9_-]{0,63}")


async def start_run(call: Call) -> Response:
    """Accept a run: durable when this answers. 202 with its place, or with ?wait= 200 with the result."""
    return await accept(call, await read_json(call.request, shapes.RunRequest, MAX_REQUEST))


async def accept(call: Call, asked: shapes.RunRequest, *, only_plan: bool = False) -> Response:
    """Accept a run that is asked for; ``only_plan``: of a goal, up to the plan."""
    wait_s = seconds(read_query(call.request, shapes.WaitQuery).wait)
    key = idempotency_key(call.request)
    submit = partial(_submit, call, asked, only_plan=only_plan)
    return await once(call, key, _digest(asked), wait_s, submit)


async def once(call: Call, key: str | None, digest: str, wait_s: float, submit: Submit) -> Response:
    """The answer to a request for a run, which is submitted unless the same request with this key has been."""
    if wait_s:
        call.services.waits.check()
    run = uuid5(call.tenant, f"idempotency:{key}") if key else _new_id()
    known = await call.services.store.run_status(call.tenant, run) if key else None
    if known is None:
        known = await submit(run, digest)
    elif known["request_hash"] != digest:
        raise Conflict("this Idempotency-Key was used with another request", code="idempotency_mismatch")
    return await _started(call, known, wait_s)


async def list_runs(call: Call) -> Response:
    """Newest first."""
    query = read_query(call.request, shapes.RunsQuery)
    after = cursors.decode(query.cursor, _run_key) if query.cursor else None
    rows, following = await call.services.store.runs(
        call.tenant, after=after, status=query.status, workflow=query.workflow, limit=query.limit
    )
    cursor = cursors.encode(following.created_at.isoformat(), following.run.hex) if following else None
    return page(shapes.Runs, [row | {"id": row["run_id"]} for row in rows], cursor)


async def get_run(call: Call) -> Response:
    """A run as it is now, with its result once it has one."""
    row = await call.services.store.run(call.tenant, call.run_id())
    if row is None:
        raise no_run()
    return answer(shapes.Run, _whole(row))


def _whole(row: Mapping[str, Any]) -> dict[str, Any]:
    around = row["parent"]
    return {**row, "id": row["run_id"], "parent": {"run": around[0], "step": around[1]} if around else None}


async def list_steps(call: Call) -> Response:
    """Every attempt of every step, in order."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, _step_key) if query.cursor else (0, 0)
    exists, rows = await call.services.store.steps(call.tenant, call.run_id(), after, query.limit + 1)
    if not exists:
        raise no_run()
    items = [_step(call.run_id(), row) for row in rows[: query.limit]]
    cursor = cursors.encode(items[-1]["step"], items[-1]["attempt"]) if len(rows) > len(items) else None
    return page(shapes.Steps, items, cursor)


def _step(run: UUID, row: dict[str, Any]) -> dict[str, Any]:
    if row["kind"] != "workflow":
        return row | {"child": None}
    return row | {"child": child_id(row["reused"] or run, row["step"], row["attempt"])}


async def list_history(call: Call) -> Response:
    """What the run has decided upon so far. With its steps and its workflow's document that is all it takes to decide
    it again: `agentflow replay`."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, cursors.number) if query.cursor else 0
    run, rows = await call.services.store.history(call.tenant, call.run_id(), after, query.limit + 1)
    if run is None:
        raise no_run()
    items = rows[: query.limit]
    return page(shapes.Lines, items, cursors.encode(items[-1]["seq"]) if len(rows) > len(items) else None)


async def cancel_run(call: Call) -> Response:
    """Ask the run to stop; asking again, or for a cancelled run, changes nothing."""
    run = call.run_id()
    asked = await read_json(call.request, shapes.CancelRequest, SMALL, optional=True)
    known = await call.services.store.run_status(call.tenant, run)
    if known is None:
        raise no_run()
    if known["status"] != "cancelled":
        data = {"run": str(run), "reason": asked.reason}
        await _tell(call, run, "run.cancel_requested", f"cancel:{uuid4()}", data)
    return answer(shapes.Noted, {"id": run}, 202, _location(run))


async def pause_run(call: Call) -> Response:
    """Let the run start nothing more; what is under way goes on, and what it comes to is kept."""
    return await _pausing(call, "pause")


async def resume_run(call: Call) -> Response:
    """Let a paused run go on."""
    return await _pausing(call, "resume")


async def _pausing(call: Call, verb: str) -> Response:
    run = call.run_id()
    asked = await read_json(call.request, shapes.PauseRequest, SMALL, optional=True)
    if await call.services.store.run_status(call.tenant, run) is None:
        raise no_run()
    data = {"run": str(run), "reason": asked.reason}
    await _tell(call, run, f"run.{verb}_requested", f"{verb}:{uuid4()}", data)
    return answer(shapes.Noted, {"id": run}, 202, _location(run))


async def signal_run(call: Call) -> Response:
    """Send the run an event of this name; with an Idempotency-Key it counts once."""
    run, name = call.run_id(), call.path("name")
    key = idempotency_key(call.request) or str(uuid4())
    asked = await read_json(call.request, shapes.SignalRequest, MAX_SIGNAL, optional=True)
    if _SIGNAL.fullmatch(name) is None or name in STEP_EVENTS:
        mend = "use 1 to 64 of a-z 0-9 _ -, and none of " + ", ".join(sorted(STEP_EVENTS))
        raise Rejected("is not a signal's name", code="invalid", path="name", mend=mend)
    known = await call.services.store.run_status(call.tenant, run)
    if known is None:
        raise no_run()
    if known["version"] is not None and known["status"] not in TERMINAL:
        _, plan = await call.services.registry.plan(call.tenant, known["workflow"], known["version"])
        wanted = plan.machine.events.get(name) if plan.machine is not None else None
        if wanted is not None and (faults := misfits(asked.data, wanted, "data")):
            raise Invalid(faults, code="invalid_signal")
    data = {"run": str(run), "name": name, "data": asked.data, "step": None}
    await _tell(call, run, "signal.received", f"signal:{key}", data)
    return answer(shapes.Noted, {"id": run}, 202, _location(run))


async def take_in(call: Call, plan: Plan, values: Mapping[str, Any], root: str = "input") -> dict[str, Any]:
    """Values of a plan's inputs and variables, with their files kept; ``Invalid`` names every fault below ``root``."""
    given, blobs, refs = check_out(values, {**plan.vars, **plan.input}, root)
    bounded(given, root)
    problems = check_input(plan, given) if root == "input" else check_values(plan, given, root)
    missing = await call.services.store.missing_blobs(call.tenant, list(refs.values())) if refs else set()
    mend = "send the file's content instead"
    problems += [
        Problem(path, "refers to a file that is not here", mend, "unknown_file")
        for path, ref in refs.items()
        if ref in missing
    ]
    if problems:
        raise Invalid(problems, code="invalid_input")
    await call.services.store.put_blobs(call.tenant, blobs)
    return given


def bounded(given: dict[str, Any], root: str) -> dict[str, Any]:
    """An input, unless it is too large to travel."""
    size = len(orjson.dumps(given))
    if size > MAX_INPUT:
        said = f"has {size} bytes without its files, more than {MAX_INPUT}"
        raise Rejected(said, code="too_large", path=root, mend="declare large inputs as `file`")
    return given


async def _submit(
    call: Call, asked: shapes.RunRequest, run: UUID, digest: str, *, only_plan: bool
) -> dict[str, Any]:
    """Check the request against its workflow, keep its files and make it durable; the run's status."""
    name, _, version = asked.workflow.partition("@")
    number, plan = await call.services.registry.plan(call.tenant, name, int(version) if version else None)
    given = await take_in(call, plan, asked.input)
    accounts = await named(call, plan, asked.budget)
    budget = None if asked.budget_usd is None else micro(asked.budget_usd)
    limit = plan.limits.micro if budget is None else min(budget, plan.limits.micro)
    more = await before(call, plan, number, given, limit, accounts)
    warnings = more.pop("warnings", [])
    data = {
        "run": str(run), "workflow": name, "version": number, "input": given, "budget_micro": budget,
        "priority": asked.priority, "request_hash": digest, "budget": asked.budget, **more,
    } | ({"only_plan": True} if only_plan else {})  # fmt: skip
    return {**await submitted(call, run, data), "warnings": [asdict(each) for each in warnings]}


async def submitted(call: Call, run: UUID, data: dict[str, Any]) -> dict[str, Any]:
    """Make a request for a run durable; the run's status."""
    message = Message("run.requested", call.tenant, run, "requested", data, call.trace)
    made = await call.services.engine.submit(message)
    status = made.status if made else "requested"
    return {"run_id": run, "workflow": data["workflow"], "version": data["version"], "status": status}


async def _started(call: Call, known: Mapping[str, Any], wait_s: float) -> Response:
    run = known["run_id"]
    if wait_s and (known["status"] in TERMINAL or await ended(call, run, wait_s)):
        row = await call.services.store.run(call.tenant, run)
        assert row is not None
        return answer(shapes.Run, _whole(row), 200, _location(run))
    return answer(shapes.AcceptedRun, {"warnings": [], **known, "id": run}, 202, _location(run))


async def _tell(call: Call, run: UUID, name: str, key: str, data: dict[str, Any]) -> None:
    await call.services.engine.submit(Message(name, call.tenant, run, key, data, call.trace))


def _digest(asked: shapes.RunRequest) -> str:
    """Tells two requests apart, but not two ways of writing the same one."""
    whole = {"workflow": asked.workflow, "input": asked.input, "budget_usd": asked.budget_usd}
    if asked.budget is not None:
        whole["budget"] = asked.budget
    if asked.priority != DEFAULT:
        whole["priority"] = asked.priority
    return sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()


def seconds(text: str | None) -> float:
    """How long a client wants to wait; 0 where it does not."""
    if text is None:
        return 0.0
    unit = "ms" if text.endswith("ms") else text[-1]
    return min(int(text.removesuffix(unit)) * _UNITS[unit], MAX_WAIT_S)


def _new_id() -> UUID:
    """A UUID of version 7: runs that start together lie together in the indexes."""
    stamp = time.time_ns() // 1_000_000
    bits = (stamp << 80) | int.from_bytes(os.urandom(10))
    bits = bits & ~(0xF << 76) | (0x7 << 76)
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    return UUID(int=bits)


def _location(run: UUID) -> dict[str, str]:
    return {"location": f"/v1/runs/{run}"}


def _run_key(at: str, run: str) -> RunKey:
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError
    return RunKey(moment, UUID(run))


def _step_key(step: int, attempt: int) -> tuple[int, int]:
    if type(step) is not int or type(attempt) is not int or not 0 <= step < 2**31 or not 0 <= attempt < 2**31:
        raise ValueError
    return step, attempt
