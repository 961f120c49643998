"""Handler: start a run from a point of another one."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from hashlib import sha256
from typing import Any
from uuid import UUID

import orjson
from starlette.responses import Response

from agentflow.control import shapes
from agentflow.control.bodies import idempotency_key, read_json, read_query
from agentflow.control.budgets import named
from agentflow.control.call import Call
from agentflow.control.estimates import before
from agentflow.control.runs import MAX_REQUEST, bounded, once, seconds, submitted, take_in
from agentflow.core.fork import Fork
from agentflow.core.plan import Plan
from agentflow.core.types import conform
from agentflow.errors import Problem, Rejected


async def fork_run(call: Call) -> Response:
    """Start a new run of the same workflow version where another one was just before a step: durable when this answers.
    What had ended by then is reused and costs nothing; what was open, that step and all that follows are done."""
    wait_s = seconds(read_query(call.request, shapes.WaitQuery).wait)
    key = idempotency_key(call.request)
    old = call.run_id()
    asked = await read_json(call.request, shapes.ForkRequest, MAX_REQUEST)
    whole = {"fork": str(old), **asked.model_dump()}
    digest = sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return await once(call, key, digest, wait_s, partial(_submit, call, old, asked))


async def _submit(call: Call, old: UUID, asked: shapes.ForkRequest, run: UUID, digest: str) -> dict[str, Any]:
    asked_for = await call.services.store.run(call.tenant, old)
    if asked_for is None:
        mend = "list runs with GET /v1/runs; one that has been removed, archived or not, can't be forked"
        raise Rejected("there is no such run", code="not_found", mend=mend)
    name, version = asked_for["workflow"], asked_for["version"]
    if version is None:
        said = "the run has not been planned, and has no step"
        raise Rejected(said, code="not_planned", path="run", mend="fork it once it has started a step")
    _, plan = await call.services.registry.plan(call.tenant, name, version)
    types = {**plan.vars, **plan.input}
    taken = await take_in(call, plan, asked.set, "set")
    sets = {each: conform(value, types[each]) for each, value in taken.items()}
    with call.services.waits.hold():
        row, fork = await call.services.origins.find(call.tenant, asked_for, plan, asked.at, sets)
    before_it = row["input"] or {}
    given = bounded({**before_it, **sets}, "set")
    charged = (asked_for["budget"], asked.budget_micro)
    warnings = await _afforded(call, plan, version, [given, before_it] if sets else [given], charged, fork)
    data = {
        "run": str(run), "workflow": name, "version": version, "input": given, "budget_micro": asked.budget_micro,
        "budget": asked_for["budget"],
        "request_hash": digest, "fork": fork.line(),
    }  # fmt: skip
    return {**await submitted(call, run, data), "warnings": [asdict(each) for each in warnings]}


async def _afforded(
    call: Call,
    plan: Plan,
    version: int,
    inputs: list[dict[str, Any]],
    charged: tuple[str | None, int | None],
    fork: Fork,
) -> list[Problem]:
    """Warnings, where the fork may be started; else the refusal that any run gets (402). It is ``charged`` to the other
    run's budget, within a limit of its own, and what that run has done costs it nothing. ``inputs``: those that it goes
    on with, and those with which what is open was begun."""
    budget, budget_micro = charged
    accounts = await named(call, plan, None if budget == plan.limits.budget else budget)
    limit = plan.limits.micro if budget_micro is None else min(budget_micro, plan.limits.micro)
    done = await call.services.store.reused(call.tenant, fork.reused, [each.step for each in fork.open])
    found = [await before(call, plan, version, given, limit, accounts, done) for given in inputs]
    warned: list[list[Problem]] = [more["warnings"] for more in found if "warnings" in more]
    return warned[0] if warned else []
