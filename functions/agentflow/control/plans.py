"""Handler: have a plan written for a goal, and see it before anything runs."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from agentflow.control import runs, shapes
from agentflow.control.bodies import read_json
from agentflow.control.call import Call
from agentflow.core.plan import Plan
from agentflow.errors import Rejected
from agentflow.wire.document import compile_document

_PLAN = ("kind", "root", "initial", "states", "transitions", "trigger", "plan")


async def write_plan(call: Call) -> Response:
    """A run of a workflow with a goal that ends when there is a plan. With `goal` it is a new one, for the tasks of any
    workflow: it is registered beside it, so that it can be run afterwards."""
    asked = await read_json(call.request, shapes.PlanRequest, runs.MAX_REQUEST)
    name, _, version = asked.workflow.partition("@")
    _, plan = await call.services.registry.plan(call.tenant, name, int(version) if version else None)
    reference = asked.workflow
    if asked.goal is not None:
        registry = call.services.registry
        goal = registry.with_models(_pursuing(plan, asked), await registry.told(call.tenant))
        number, _ = await call.services.store.register(call.tenant, goal.name, goal.hash, goal.document, None)
        reference = f"{goal.name}@{number}"
    elif plan.planning is None:
        mend = "give `goal`, or name a workflow with `plan: {goal: ...}`"
        raise Rejected(f"{name} has a plan already", code="no_goal", path="goal", mend=mend)
    given = asked.model_dump(include=set(shapes.RunRequest.model_fields)) | {"workflow": reference}
    return await runs.accept(call, shapes.RunRequest(**given), only_plan=True)


def _pursuing(plan: Plan, asked: shapes.PlanRequest) -> Plan:
    """The workflow's tasks, with the goal in place of its plan. ``Invalid`` when they do not go together."""
    document = {key: value for key, value in plan.document.items() if key not in _PLAN}
    goal: dict[str, Any] = {"goal": asked.goal, "use": asked.use or _model(plan), "kind": asked.kind}
    if asked.tasks is not None:
        goal["tasks"] = asked.tasks
    return compile_document({**document, "name": f"{plan.name[:59]}-goal", "plan": goal})


def _model(plan: Plan) -> str:
    """The model that the workflow itself uses."""
    models = sorted({task.use for task in plan.tasks.values() if task.kind == "llm"})
    if len(models) != 1:
        mend = "name a model, e.g. small"
        raise Rejected("is needed: the workflow does not say which model", code="no_model", path="use", mend=mend)
    return models[0]
