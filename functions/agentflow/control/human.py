"""Handlers: what waits for people, and their answers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read_json, read_query
from agentflow.control.call import Call, answer, no_run, page
from agentflow.control.fitting import misfits
from agentflow.core.budgets import Account
from agentflow.core.message import Message
from agentflow.core.waiting import RUN
from agentflow.errors import Conflict, Invalid, Problem
from agentflow.store.control import ACTOR, NO_RUN

MAX_ANSWER = 256 * 1024
MOST_USD = 1_000_000


async def list_tasks(call: Call) -> Response:
    """By run and step, the oldest runs first."""
    query = read_query(call.request, shapes.HumanTasksQuery)
    after = cursors.decode(query.cursor, _place) if query.cursor else (NO_RUN, 0)
    store = call.services.store
    rows = await store.human(call.tenant, run=query.run, step=None, after=after, limit=query.limit + 1)
    items = [await _described(call, row) for row in rows[: query.limit]]
    last = cursors.encode(items[-1]["run"].hex, items[-1]["step"]) if len(rows) > len(items) else None
    return page(shapes.HumanTasks, items, last)


async def answer_task(call: Call) -> Response:
    """The answer is checked by the types the task declares, and counts once: the first is taken."""
    run, step = call.run_id(), _step(call.path("step"))
    asked = await read_json(call.request, shapes.AnswerRequest, MAX_ANSWER, optional=True)
    rows = await call.services.store.human(call.tenant, run=run, step=step, after=(NO_RUN, 0), limit=1)
    if not rows:
        if await call.services.store.run_status(call.tenant, run) is None:
            raise no_run()
        raise Conflict(f"step {step} does not wait for a person (see GET /v1/tasks)", code="not_waiting")
    result = asked.result
    if rows[0]["short"] is not None:
        result = _approval(result, _answers(rows[0]))
    else:
        _, plan = await call.services.registry.plan(call.tenant, rows[0]["workflow"], rows[0]["version"])
        out = plan.tasks[rows[0]["task"]].out
        if out is not None and (faults := misfits(result, out, "result")):
            raise Invalid(faults, code="invalid_answer")
    by = asked.by or f"key:{ACTOR.get()}"
    data = {"run": str(run), "step": step, "output": result, "by": by}
    message = Message("step.answered", call.tenant, run, f"answer:{step}:{uuid4()}", data, call.trace)
    await call.services.engine.submit(message)
    return answer(shapes.Noted, {"id": run}, 202, {"location": f"/v1/runs/{run}"})


def _answers(row: dict[str, Any]) -> dict[str, str]:
    """What may be said to a step that a limit does not admit. A tenant's accounts are not raised by answers."""
    scope, *_ = row["short"]
    return {"approve": "bool", "usd": "double"} if scope == RUN else {"approve": "bool"}


def _approval(result: Any, asked: dict[str, str]) -> dict[str, Any]:
    """Whether a run may spend more than a limit says, and by how much its own is raised at least."""
    approve, usd = result.get("approve"), result.get("usd")
    mend = f"asked for is {', '.join(f'{name}: {kind}' for name, kind in asked.items())}"
    mend += "; usd may be left out" if "usd" in asked else "; an account is raised with: agentflow budgets set"
    faults = [
        Problem(f"result.{name[:64]}", "is not asked for", mend, "unknown") for name in result if name not in asked
    ]
    if not isinstance(approve, bool):
        faults.append(Problem("result.approve", "is no bool", "say whether it may be spent: true or false", "type"))
    if usd is not None and (isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd <= MOST_USD):
        faults.append(Problem("result.usd", "is no amount", f"give dollars from 0 to {MOST_USD}", "type"))
    if faults:
        raise Invalid(faults, code="invalid_answer")
    return {"approve": approve, "micro": 0 if usd is None else int(Decimal(str(usd)) * 1_000_000)}


async def _budget(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    """What a step lacks that a limit does not admit, as a task for a person."""
    scope, period, needed, *_ = row["short"]
    accounts = [Account(RUN, "total", row["limit_micro"], row["spent_micro"], row["held_micro"])]
    if scope != RUN:
        accounts = await call.services.store.accounts(call.tenant, [scope])
    known = (account.told() for account in accounts if account.period == period)
    asked = {**next(known, {"scope": scope, "period": period}), "needed_micro": needed, "input": row["input"]}
    return {**row, "use": "budget", "input": asked, "out": _answers(row)}


async def _described(call: Call, row: dict[str, Any]) -> dict[str, Any]:
    if row["short"] is not None:
        return await _budget(call, row)
    _, plan = await call.services.registry.plan(call.tenant, row["workflow"], row["version"])
    task = plan.tasks[row["task"]]
    out = None if task.out is None else {name: type_.name for name, type_ in task.out.items()}
    return {**row, "use": task.use, "out": out}


def _step(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _place(run: str, step: int) -> tuple[UUID, int]:
    if type(step) is not int or not 0 <= step < 2**31:
        raise ValueError
    return UUID(run), step
