"""A run as the functions see it: one frozen value per row, changed only through the table below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from agentflow.core.planner import PlanState

JSON = Any

# status -> the statuses that may follow. The only place where a run's life is written down.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "requested": frozenset({"planned", "failed", "cancelled"}),
    "planned": frozenset({"running", "succeeded", "failed", "cancelled"}),
    "running": frozenset({"succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
TERMINAL = frozenset(status for status, after in TRANSITIONS.items() if not after)


@dataclass(frozen=True, slots=True)
class OpenStep:
    """A step that has been started and not yet closed.

    ``waits`` says for what: ``call`` (an effect is out), ``retry`` (the next attempt's timer), ``timer`` (a wait
    task) or ``event`` (a CloudEvent).
    """

    task: str
    attempt: int
    epoch: int
    waits: str

    def to_json(self) -> list[JSON]:
        return [self.task, self.attempt, self.epoch, self.waits]


@dataclass(frozen=True, slots=True)
class Price:
    """A model pinned to a run with what it costs, in micro-dollars per million tokens."""

    provider: str
    model: str
    input_micro_per_mtok: int
    output_micro_per_mtok: int
    price_version: str


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow. Money in micro-dollars; ``holds`` maps ``step.attempt`` to what it reserves."""

    tenant: UUID
    id: UUID
    workflow: str
    version: int | None
    status: str = "requested"
    seq: int = 0
    epoch: int = 0
    tokens: int = 0
    limit_micro: int = 0
    spent_micro: int = 0
    held_micro: int = 0
    frozen: bool = False
    plan: PlanState | None = None
    open: Mapping[int, OpenStep] = field(default_factory=dict)
    holds: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, Price] = field(default_factory=dict)
    plan_hash: str = ""
    cancel_reason: str | None = None
    input: Mapping[str, JSON] = field(default_factory=dict)
    output: Mapping[str, JSON] | None = None
    error: Mapping[str, JSON] | None = None
    request_hash: str = ""
    trace: str | None = None
    created_ms: int = 0

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def steps(self) -> int:
        return self.plan.steps if self.plan else 0

    def move(self, status: str, **changes: Any) -> Run:
        """The run in another status; a move the table does not list is a bug and raises ``ValueError``."""
        if status not in TRANSITIONS[self.status]:
            raise ValueError(f"run {self.id}: {self.status} cannot become {status}")
        return replace(self, status=status, **changes)

    def state_json(self) -> dict[str, JSON]:
        """What the ``state`` column holds: everything that has no column of its own."""
        state: dict[str, JSON] = {}
        if self.plan is not None:
            state["vars"] = self.plan.vars
            state["cursor"] = self.plan.cursor
        if self.open:
            state["open"] = {str(step): opened.to_json() for step, opened in self.open.items()}
        if self.holds:
            state["holds"] = self.holds
        if self.models:
            state["models"] = {
                alias: [p.provider, p.model, p.input_micro_per_mtok, p.output_micro_per_mtok, p.price_version]
                for alias, p in self.models.items()
            }
        if self.plan_hash:
            state["plan"] = self.plan_hash
        if self.cancel_reason is not None:
            state["cancel"] = self.cancel_reason
        return state


def unpack_state(state: Mapping[str, JSON], steps: int) -> dict[str, Any]:
    """The keyword arguments of ``Run`` that ``Run.state_json`` packed."""
    fields: dict[str, Any] = {}
    if "vars" in state:
        fields["plan"] = PlanState(vars=state["vars"], cursor=state["cursor"], steps=steps)
    if "open" in state:
        fields["open"] = {int(step): OpenStep(*opened) for step, opened in state["open"].items()}
    if "holds" in state:
        fields["holds"] = state["holds"]
    if "models" in state:
        fields["models"] = {alias: Price(*price) for alias, price in state["models"].items()}
    fields["plan_hash"] = state.get("plan", "")
    fields["cancel_reason"] = state.get("cancel")
    return fields
