"""The registry of workflows: documents are checked and compiled here, before anybody may run them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from agentflow.control.call import Models, no_workflow
from agentflow.core.canonical import as_written
from agentflow.core.compile_tree import MAX_NODES
from agentflow.core.goal import AUTHOR
from agentflow.core.plan import Child, Plan, Task
from agentflow.core.planner import advance
from agentflow.core.price import Told, told_price
from agentflow.core.proof import STATES, proven
from agentflow.errors import Invalid, Problem, Rejected
from agentflow.wire.document import MAX_BYTES, Checked, check_document, compile_stored
from agentflow.wire.json_value import loads

MAX_PLANS = 500
MODEL = "model:"

Made = TypeVar("Made")


class PlanLimits(NamedTuple):
    """How large a plan may be that is registered: what the installation allows, within what the format does.
    ``states``: how many of them the model check goes through."""

    bytes: int = MAX_BYTES
    nodes: int = MAX_NODES
    steps: int = 100_000
    states: int = STATES

    def check(self, plan: Plan) -> list[Problem]:
        """What is too large."""
        key, count = ("root", len(plan.tree.nodes)) if plan.tree is not None else ("states", 0)
        if plan.machine is not None:
            count = len(plan.machine.states) - 1
        found = []
        if count > self.nodes:
            said = f"has {count:,} nodes or states; {self.nodes:,} are allowed here"
            found.append(Problem(key, said, "split the workflow", "too_large"))
        if plan.limits.steps > self.steps and plan.planning is None:
            said = f"is {plan.limits.steps:,}; {self.steps:,} are allowed here"
            found.append(Problem("limits.steps", said, "allow fewer, or split the workflow", "too_large"))
        return found


DEFAULT = PlanLimits()


class WorkflowStore(Protocol):
    """Where registered documents are kept."""

    async def newest_version(
        self, tenant: UUID, name: str, first: int | None = None, last: int | None = None
    ) -> int | None: ...

    async def workflow(self, tenant: UUID, name: str, version: int | None) -> dict[str, Any] | None: ...

    async def prices(self, tenant: UUID) -> list[dict[str, Any]]: ...


def told_models(rows: Sequence[Mapping[str, Any]]) -> Told | None:
    """What a tenant was told that models cost, in rows of its prices; None: nothing."""
    told = {
        row["scope"].removeprefix(MODEL): told_price(row["card"], row["version"])
        for row in rows
        if row["card"] is not None and row["scope"].startswith(MODEL)
    }
    return told.get if told else None


class Registry:
    """Compiles documents, in one thread of its own so that requests go on meanwhile, and remembers plans."""

    def __init__(self, store: WorkflowStore, models: Models, limits: PlanLimits = DEFAULT) -> None:
        self.limits = limits
        self._store = store
        self.models = models
        self._compiler = ThreadPoolExecutor(1, thread_name_prefix="compile")
        # A version never changes, so its plan is compiled once.
        self._plans: OrderedDict[tuple[UUID, str, int], Plan] = OrderedDict()

    async def check(self, tenant: UUID, body: bytes, *, yaml: bool) -> Checked:
        """The plan of a document from outside, and warnings; ``Invalid`` names every fault, unknown models included."""
        return await self._in_thread(self._check, body, yaml, await self.told(tenant))

    async def plan(self, tenant: UUID, name: str, version: int | None) -> tuple[int, Plan]:
        """A registered workflow's version (None: the newest) and plan; ``Rejected`` (not_found) otherwise."""
        number = version or await self._store.newest_version(tenant, name)
        if number is None:
            raise no_workflow(name, version)
        key = (tenant, name, number)
        plan = self._plans.get(key)
        if plan is None:
            row = await self._store.workflow(tenant, name, number)
            if row is None:
                raise no_workflow(name, version)
            plan = await self._in_thread(compile_stored, row["document"])
            self._plans[key] = plan
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return number, plan

    async def newest(self, tenant: UUID, child: Child) -> tuple[int, Plan]:
        """The version of a workflow that a task of another would run now; ``Rejected`` (not_found) when none would."""
        number = await self._store.newest_version(tenant, child.workflow, child.first, child.last)
        if number is None:
            raise no_workflow(child.workflow, child.first)
        return await self.plan(tenant, child.workflow, number)

    async def _in_thread(self, work: Callable[..., Made], *given: object) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._compiler, work, *given)

    async def told(self, tenant: UUID) -> Told | None:
        """What a tenant was told that models cost; None: nothing."""
        return told_models(await self._store.prices(tenant))

    def _check(self, body: bytes, yaml: bool, told: Told | None) -> Checked:
        checked = check_document(body if yaml else _object(loads(body)))
        self.with_models(checked.plan, told)
        found = proven(checked.plan, advance, self.limits.states)
        if errors := [problem for problem in found if problem.severity == "error"]:
            raise Invalid(errors, code="invalid_plan")
        return Checked(checked.plan, (*checked.warnings, *found))

    def with_models(self, plan: Plan, told: Told | None = None) -> Plan:
        """The plan, when it is not too large and there is a model for every task that needs one; else ``Invalid``."""
        problems = self.limits.check(plan)
        for task in plan.tasks.values():
            if task.kind != "llm":
                continue
            for alias in task.aliases:
                try:
                    self.models.resolve(alias, told)
                except Rejected as refusal:
                    found = refusal.problem
                    fault = Problem(_place(plan, task, alias), found.message, found.mend, found.code)
                    problems.append(as_written(fault, AUTHOR))
        if problems:
            raise Invalid(list(dict.fromkeys(problems)), code="invalid_plan")
        return plan


def _place(plan: Plan, task: Task, alias: str) -> str:
    """Where a document names the model that an llm task may ask."""
    if alias != task.use:
        return f"tasks.{task.part_of or task.name}.cheaper"
    within = plan.tasks[task.part_of].agent if task.part_of else None
    return f"agents.{within.name}.model" if within else f"tasks.{task.name}.use"


def _object(document: Any) -> Mapping[str, Any]:
    if not isinstance(document, dict):
        problem = Problem("", "a workflow is a JSON object", "see schemas/plan.schema.json", "schema")
        raise Invalid([problem], code="invalid_plan")
    return document
