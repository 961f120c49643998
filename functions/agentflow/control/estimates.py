"""Handlers: what a run may cost before it starts; and what is said when it is asked for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Any, NamedTuple
from uuid import UUID

from starlette.responses import Response

from agentflow.control import shapes
from agentflow.control.bodies import read_json
from agentflow.control.budgets import charged, exhausted, named
from agentflow.control.call import Call, answer
from agentflow.control.files import check_out
from agentflow.control.registry import told_models
from agentflow.core import preflight
from agentflow.core.budgets import Account
from agentflow.core.costly import starts
from agentflow.core.estimate import (
    NOTHING_DONE,
    Estimate,
    Line,
    Observed,
    Range,
    Seen,
    Tariff,
    estimate,
    expected_micro,
)
from agentflow.core.plan import Plan
from agentflow.core.planner import check_input
from agentflow.core.preflight import REFUSE, Worst, worst_case
from agentflow.core.price import ToolPrice, told_tool
from agentflow.core.types import JSON
from agentflow.errors import Invalid, TooDear

TOOL = "tool:"
DAYS = 90
"""Runs of how many days are looked at."""
ENOUGH = 5
"""Runs of the version that is asked for; with fewer those of all versions count."""
KNOWN_S = 30.0
"""How long what was observed may be old where a run is accepted."""
MAX_KNOWN = 1_000
MAX_REQUEST = 16 * 1024 * 1024

Given = Mapping[str, JSON]


class Basis(NamedTuple):
    """What an estimate of a workflow's runs rests on."""

    tariff: Tariff
    observed: Observed


class Bases:
    """The bases of the workflows that runs are asked for of: read again after half a minute."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[UUID, str, int], tuple[float, Basis]] = OrderedDict()

    async def of(self, call: Call, plan: Plan, version: int) -> Basis:
        """As it was at most half a minute ago."""
        key = (call.tenant, plan.name, version)
        found = self._known.get(key)
        if found is not None and time.monotonic() - found[0] < KNOWN_S:
            self._known.move_to_end(key)
            return found[1]
        made = await basis(call, plan, version)
        self._known[key] = (time.monotonic(), made)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return made


async def basis(call: Call, plan: Plan, version: int) -> Basis:
    """What models and tools cost the tenant, and what its runs have come to."""
    rows = await call.services.store.prices(call.tenant)
    models, told = call.services.registry.models, told_models(rows)
    tariff = Tariff(
        {alias: models.resolve(alias, told) for alias in plan.aliases},
        _told_tools(rows),
        {alias: models.window(alias) for alias in plan.aliases},
    )
    if not starts(plan, tariff.tools):
        return Basis(tariff, Observed())
    seen = await call.services.store.observed(call.tenant, plan.name, version, DAYS)
    return Basis(tariff, observed(seen, version))


def _told_tools(rows: list[dict[str, Any]]) -> dict[str, ToolPrice]:
    return {
        row["scope"].removeprefix(TOOL): told_tool(row["card"], row["version"])
        for row in rows
        if row["card"] is not None and row["scope"].startswith(TOOL)
    }


def observed(rows: list[dict[str, Any]], version: int) -> Observed:
    """What was seen of the version, or of all where it has hardly run yet."""
    own = [row for row in rows if row["version"] == version]
    runs = sum(row["runs"] for row in own if not row["task"])
    if runs < ENOUGH:
        own, runs = rows, sum(row["runs"] for row in rows if not row["task"])
    tasks: dict[str, Seen] = {}
    for row in own:
        if row["task"]:
            sums = tasks.get(row["task"], Seen(0, 0, 0, 0, 0))
            tasks[row["task"]] = Seen(*(a + row[name] for a, name in zip(sums, Seen._fields, strict=True)))
    versions = {row["version"] for row in own}
    return Observed(runs, tasks, versions.pop() if len(versions) == 1 else None)


async def estimate_run(call: Call) -> Response:
    """What a run with these inputs may cost: at least where it succeeds, as expected, at most. Nothing is started."""
    asked = await read_json(call.request, shapes.EstimateRequest, MAX_REQUEST, optional=True)
    name = call.workflow(asked.version)
    version, plan = await call.services.registry.plan(call.tenant, name, asked.version)
    given, _, _ = check_out(asked.input, {**plan.vars, **plan.input})
    if problems := check_input(plan, given):
        raise Invalid(problems, code="invalid_input")
    limit, limit_name = plan.limits.micro, "limits.usd"
    if asked.budget_usd is not None and (budget := micro(asked.budget_usd)) < limit:
        limit, limit_name = budget, "budget_usd"
    rests_on = await basis(call, plan, version)
    found = estimate(plan, rests_on.tariff, given, limit, limit_name, rests_on.observed)
    accounts = await (named(call, plan, asked.budget) if asked.budget else charged(call, plan))
    left = [account.left_micro for account in accounts]
    remaining = min((each for each in left if each is not None), default=None)
    told = as_json(found) | {"workflow": name, "version": version, "tenant_remaining_micro": remaining}
    return answer(shapes.Estimate, told)


async def before(
    call: Call,
    plan: Plan,
    version: int,
    given: Given,
    limit: int,
    accounts: Sequence[Account],
    done: Mapping[str, int] = NOTHING_DONE,
) -> dict[str, Any]:
    """What goes along with a request for a run: what it is expected to cost, and warnings. ``done``: by task the starts
    that another run has paid for.

    ``Exhausted`` where it could not make any call that costs money, as nothing is left in one of the ``accounts`` it is
    charged to; what its calls may cost is held when they are made. ``TooDear`` where it may cost more than there is, in
    its limit or in these, and its workflow refuses that."""
    if not limit:
        return {}
    rests_on = await call.services.bases.of(call, plan, version)
    if not starts(plan, rests_on.tariff.tools):
        return {}
    if (empty := preflight.exhausted(plan, rests_on.tariff, accounts)) is not None:
        raise exhausted(empty)
    more: dict[str, Any] = {"expected_micro": expected_micro(plan, rests_on.tariff, given, limit, rests_on.observed)}
    worst = worst_case(plan, rests_on.tariff, given, done)
    if worst is not None and (fault := _too_dear(plan, worst, limit, accounts)) is not None:
        if plan.limits.preflight == REFUSE:
            raise fault
        more["warnings"] = [fault.problem]
    return more


def _too_dear(plan: Plan, worst: Worst, limit: int, accounts: Sequence[Account]) -> TooDear | None:
    told = {"most_micro": worst.micro}
    if worst.exceeds(limit):
        mend = worst.mending("raise limits.usd" if limit == plan.limits.micro else "raise budget_usd")
        own = Account("run", "total", limit)
        return TooDear(worst.said(limit, "it"), told, own.told(), path="limits.usd", mend=mend)
    known = [(left, account) for account in accounts if (left := account.left_micro) is not None]
    left, account = min(known, key=lambda each: each[0], default=(None, None))
    if left is None or account is None or not worst.exceeds(left):
        return None
    mend = worst.mending(f"have {account.who}'s limit raised")
    return TooDear(worst.said(left, account.who), told, account.told(), path="budget", mend=mend)


def micro(usd: float) -> int:
    """Dollars as micro-dollars, rounded down."""
    return int((Decimal(str(usd)) * 1_000_000).to_integral_value(ROUND_FLOOR))


def as_json(found: Estimate) -> dict[str, Any]:
    """An estimate as it is told."""
    return {
        "cost_micro": _range(found.cost),
        "input_tokens": _range(found.input_tokens),
        "output_tokens": _range(found.output_tokens),
        "plan_most_micro": found.structure_micro,
        "limit_micro": found.limit_micro,
        "bounded_by": found.bounded_by,
        "runs_observed": found.runs_observed,
        "version_observed": found.version_observed,
        "note": NOTHING_SEEN if not found.runs_observed else "",
        "on_top": LOST_CALLS if found.lines else "",
        "tasks": [_task(line) for line in found.lines],
        "unbounded": [
            {"path": each.path, "message": each.message, "mend": each.mend, "code": each.code} for each in found.free
        ],
    }


NOTHING_SEEN = "no runs observed yet: what is expected is a guess, from prompts as they stand and half of max_tokens"

LOST_CALLS = (
    "on top of the most: calls that are lost when a process dies and are made again, within what the run may spend,"
    " which is never exceeded"
)


def _task(line: Line) -> dict[str, Any]:
    return {
        "task": line.task,
        "kind": line.kind,
        "use": line.use,
        "starts": _range(line.starts),
        "cost_micro": _range(line.cost),
        "input_tokens": _range(line.input_tokens),
        "output_tokens": _range(line.output_tokens),
        "observed": line.observed,
    }


def _range(found: Range) -> dict[str, int | None]:
    return found._asdict()
