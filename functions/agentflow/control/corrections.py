"""Handlers: what an administrator of the tenant corrects about what was spent."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import uuid5

import orjson
from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import SMALL, idempotency_key, read_json, read_query
from agentflow.control.budgets import unknown_budget
from agentflow.control.call import Call, answer, page
from agentflow.core.decide.api import CORRECT
from agentflow.core.message import Message
from agentflow.errors import Conflict, Rejected
from agentflow.store.control import ACTOR

RUN = "run"


async def correct_spend(call: Call) -> Response:
    """Correct what was spent: a provider's invoice says otherwise, or something was refunded. It is one entry of the
    ledger, and counts in all accounts and reports from now on. With a key of an administrator only, and once for each
    Idempotency-Key."""
    key = idempotency_key(call.request)
    if key is None:
        mend = "send one, e.g. the invoice's number: the same key counts once"
        raise Rejected("is missing", code="bad_header", path="Idempotency-Key", mend=mend)
    asked = await read_json(call.request, shapes.CorrectionRequest, SMALL)
    if not await call.services.store.is_admin(call.tenant, ACTOR.get()):
        mend = "use one that was made with: agentflow key create --admin"
        raise Rejected("the API key is no administrator's", code="forbidden", mend=mend)
    digest = sha256(orjson.dumps(asked.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)).hexdigest()
    known = await call.services.store.correction(call.tenant, key)
    if known is None:
        await _submit(call, key, asked, digest)
        known = await call.services.store.correction(call.tenant, key)
        assert known is not None
        status = 201
    else:
        status = 200
    if known["request_hash"] != digest:
        raise Conflict("this Idempotency-Key was used with another request", code="idempotency_mismatch")
    return answer(shapes.Correction, known, status)


async def list_corrections(call: Call) -> Response:
    """The newest first."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, _place) if query.cursor else None
    rows = await call.services.store.corrections(call.tenant, after, query.limit + 1)
    items = rows[: query.limit]
    last = cursors.encode(items[-1]["made_at"].isoformat(), items[-1]["key"]) if len(rows) > len(items) else None
    return page(shapes.Corrections, items, last)


async def _submit(call: Call, key: str, asked: shapes.CorrectionRequest, digest: str) -> None:
    data: dict[str, Any] = {
        "key": key, "scope": RUN if asked.run else asked.scope, "amount_micro": asked.amount_micro,
        "reason": asked.reason, "by": ACTOR.get(), "request_hash": digest, "step": asked.step,
        **await _of_step(call, asked),
    }  # fmt: skip
    if asked.run is None:
        await _check_scope(call, asked)
    run = asked.run or uuid5(call.tenant, f"correction:{key}")
    await call.services.engine.submit(Message(CORRECT, call.tenant, run, f"corrected:{key}", data, call.trace))


async def _of_step(call: Call, asked: shapes.CorrectionRequest) -> dict[str, Any]:
    """The task of the step that the correction names, '' where it names none, and its model where that is not the
    task's own. ``Rejected`` where there is no such step, or another run has done it."""
    if asked.step is None:
        return {"task": ""}
    if asked.run is None:
        raise Rejected("is a step of no run", code="bad_step", path="step", mend="give `run`, too")
    found = await call.services.store.step(call.tenant, asked.run, asked.step)
    if found is None:
        mend = "list those that have ended with GET /v1/runs/{run}/steps"
        raise Rejected("has not ended, or there is no such step", code="unknown_step", path="step", mend=mend)
    if found["kind"] == "workflow":
        raise Rejected("was another run", code="bad_step", path="step", mend="correct that run, the step's `child`")
    return {"task": str(found["task"]), "alias": found["alias"]}


async def _check_scope(call: Call, asked: shapes.CorrectionRequest) -> None:
    """There is such a scope: something was spent there, or is to be counted. And what is given back was spent there."""
    store, scope = call.services.store, asked.scope
    spent = await store.spent(call.tenant, scope)
    kind, _, name = scope.partition(":")
    if spent is None and name and not await store.accounts(call.tenant, [scope]):
        if kind == "budget":
            raise unknown_budget(name, "scope")
        if await store.newest_version(call.tenant, name) is None:
            mend = "list them with GET /v1/workflows"
            raise Rejected(f"there is no workflow {name!r}", code="unknown_workflow", path="scope", mend=mend)
    spent = spent or 0
    if spent + asked.amount_micro < 0:
        said = f"would give back {-asked.amount_micro} micro-dollars of {spent} that were spent"
        raise Rejected(said, code="below_zero", path="amount_micro", mend="give back less")


def _place(at: str, key: str) -> tuple[datetime, str]:
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None or type(key) is not str:
        raise ValueError
    return moment, key
