"""``agentflow estimate``: what a run may cost before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.config import Settings
from agentflow.errors import Invalid, Rejected
from agentflow.terminal import amounts, output
from agentflow.terminal.client import api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.loading import compile_file, is_file
from agentflow.terminal.progress import dollars
from agentflow.terminal.running import quoted, registered

if TYPE_CHECKING:
    from agentflow.core.plan import Plan


async def show_estimate(
    settings: Settings, workflow: str, given: list[str], budget: float | None, charge_to: str | None, *, as_json: bool
) -> None:
    """Print least, expected and most, by task and in all."""
    amounts.budget(budget)
    if is_file(workflow) and charge_to is not None:
        mend = "name a registered workflow, or leave it out"
        raise Rejected("a file is estimated without any accounts", code="usage", path="--charge-to", mend=mend)
    if is_file(workflow):
        found = _of_file(settings, compile_file(workflow), given, budget)
    else:
        name, _, version = workflow.partition("@")
        async with api(settings) as client:
            plan = await registered(client, workflow)
            body: dict[str, Any] = {"input": read_inputs(given, {**plan.vars, **plan.input})}
            body |= {"version": int(version)} if version.isdigit() else {}
            body |= {} if budget is None else {"budget_usd": budget}
            body |= {} if charge_to is None else {"budget": charge_to}
            found = await call(client, "POST", f"/v1/workflows/{quoted(name)}/estimate", json=body)
    if as_json:
        output.print_json(found)
    else:
        _show(found)


def _of_file(settings: Settings, plan: Plan, given: list[str], budget: float | None) -> dict[str, Any]:
    """By the prices of these settings; nobody has seen a run of a file."""
    from agentflow.control.estimates import as_json
    from agentflow.control.files import check_out
    from agentflow.core.estimate import Tariff, estimate
    from agentflow.core.planner import check_input
    from agentflow.models.catalogue import ModelCatalogue

    types = {**plan.vars, **plan.input}
    values, _, _ = check_out(read_inputs(given, types), types)
    if problems := check_input(plan, values):
        raise Invalid(problems, code="invalid_input")
    models = ModelCatalogue.from_settings(settings)
    prices = {alias: models.resolve(alias) for alias in plan.aliases}
    tariff = Tariff(prices, {}, {alias: models.window(alias) for alias in plan.aliases})
    limit, name = plan.limits.micro, "limits.usd"
    if budget is not None and (micro := amounts.budget_micro(budget)) < limit:
        limit, name = micro, "--budget"
    found = as_json(estimate(plan, tariff, values, limit, name))
    return {"workflow": plan.name, "version": None, **found, "tenant_remaining_micro": None}


def _show(found: dict[str, Any]) -> None:
    columns = ("task", "model or tool", "starts", "least", "expected", "most", "tokens in", "out")
    rows = [
        [task["task"], task["use"], _span(task["starts"]), *_money(task["cost_micro"]), _tokens(task, "input"),
         _tokens(task, "output")]
        for task in found["tasks"]
    ]  # fmt: skip
    total = ["in all", "", "", *_money(found["cost_micro"]), _tokens(found, "input"), _tokens(found, "output")]
    output.print_table(columns, [*rows, total] if rows else [], "nothing of it costs money")
    if not rows:
        return
    most, limit = found["plan_most_micro"], dollars(found["limit_micro"])
    if found["bounded_by"] == "plan":
        print(f"the most follows from the plan; it may spend {limit}")
    elif most is None:
        print(f"the most is {found['bounded_by']}, {limit}: the plan has no bound of its own")
    else:
        print(f"the most is {found['bounded_by']}, {limit}: the plan may come to {dollars(most)}")
    if on_top := found.get("on_top"):  # not from an API of before
        print(on_top)
    for each in found["unbounded"]:
        print(f"  {each['path']}: {each['message']} ({each['mend']})")
    if (left := found["tenant_remaining_micro"]) is not None:
        print(f"the accounts it is charged to have {dollars(left)} left")
    seen = found["runs_observed"]
    print(found["note"] or f"what is expected follows from {seen} run{'s' if seen > 1 else ''} of the last 90 days")


def _money(found: dict[str, Any]) -> list[str]:
    return ["no bound" if found[name] is None else dollars(found[name]) for name in ("least", "expected", "most")]


def _span(found: dict[str, Any]) -> str:
    return str(found["most"]) if found["least"] == found["most"] else f"{found['least']} to {found['most']}"


def _tokens(found: dict[str, Any], which: str) -> str:
    tokens = found[f"{which}_tokens"]
    return f"{tokens['expected']:,}" + ("" if tokens["most"] is None else f" of {tokens['most']:,}")
