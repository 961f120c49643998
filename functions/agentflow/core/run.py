"""A run as the functions see it: one frozen value per row, changed only through the table below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from immutables import Map

from agentflow.core.planner import PlanState
from agentflow.core.price import Price, ToolPrice
from agentflow.core.waiting import NOBODY, RUN, Shortage, Waiting

JSON = Any

# status -> the statuses that may follow. The only place where a run's life is written down.
TRANSITIONS: Mapping[str, frozenset[str]] = {
    "requested": frozenset({"planned", "failed", "cancelled"}),
    "planned": frozenset({"running", "succeeded", "failed", "cancelled"}),
    "running": frozenset({"paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"running", "succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
TERMINAL = frozenset(status for status, after in TRANSITIONS.items() if not after)


class OpenStep(NamedTuple):
    """A step that has been started and not yet closed.

    ``waits`` says for what: ``call`` (an effect is out), ``decision`` (its result is recorded), ``retry`` (the next
    attempt's timer), ``timer`` (a wait task), ``event`` (a CloudEvent), ``person`` (an answer), ``child`` (another
    run), ``planner`` (which carries it out itself), ``resume`` (the run is paused), ``budget`` (headroom; see
    ``Run.short``) or ``approval`` (that a person gives it some). ``at_ms`` is when it was opened;
    ``input`` what it was given, unless a request that is out says so; ``used_micro`` what an agent's inner steps have
    cost, or may cost; ``key`` the idempotency key of its calls, where its task says one; ``lost`` how many of its
    attempts were lost with the life that made them, and do not count.
    """

    task: str
    attempt: int
    epoch: int
    waits: str
    at_ms: int = 0
    input: Mapping[str, JSON] | None = None
    used_micro: int = 0
    key: str = ""
    lost: int = 0

    def packed(self) -> tuple[JSON, ...]:
        """As JSON; without the key, and what it has lost, where there is none, as of most."""
        if self.lost:
            return tuple(self)
        return self[:-1] if self.key else self[:-2]


class Parent(NamedTuple):
    """The step of another run that waits for this one. ``depth`` is how many runs are around it."""

    run: UUID
    step: int
    attempt: int
    epoch: int
    depth: int


NONE: Mapping[Any, Any] = MappingProxyType({})
EMPTY: Map[Any, Any] = Map()


class Run(NamedTuple):
    """One execution of a workflow. Money in micro-dollars; ``holds`` maps ``step.attempt`` to what it reserves.

    Never changed: ``but`` makes the next value, in half of the time that ``_replace`` takes for so many fields.
    """

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
    open: Map[int, OpenStep] = EMPTY  # there may be 10,000 of these; a new version costs the same however many
    holds: Map[str, int] = EMPTY
    halted: Map[str, str] = EMPTY  # of the holds: those of calls that nobody waits for, with their tasks' names
    cheaper: Map[str, str] = EMPTY  # of the holds: those for models that are not their tasks' own, with their aliases
    models: Mapping[str, Price] = NONE
    plan_hash: str = ""
    cancel_reason: str | None = None
    input: Mapping[str, JSON] = NONE
    output: Mapping[str, JSON] | None = None
    error: Mapping[str, JSON] | None = None
    request_hash: str = ""
    trace: str | None = None
    created_ms: int = 0
    rev: int = 0  # how often it has been written
    priority: int = 5  # among what its tenant has waiting: 0 to 9, 9 first
    steered_ms: int = 0  # when the last request to pause or to resume was made
    slot: bool = False  # whether it had to wait for its turn, and holds a place until it ends
    parent: Parent | None = None
    forked: Mapping[str, JSON] | None = None  # the run it goes on from, and until it has begun all of core/fork.py
    tally: Map[str, tuple[int, ...]] | None = None  # what it has spent, by task: see core/spending.py
    starts: Mapping[str, int] = NONE  # how often tasks may start at most, where that depends on its inputs
    expected_micro: int | None = None  # what it was expected to cost when it was asked for
    short: Waiting = NOBODY  # open steps that wait for money
    budget: str | None = None  # the named budget that it is charged to, besides its tenant's and its workflow's
    chain: bytes | None = None  # of the rows it has left behind, as it was last written (store/chain.py)
    corrections: int = 0  # of what it has spent, by administrators
    tools: Mapping[str, ToolPrice] = NONE  # what the tenant has been told that its tools cost, where it has been
    beyond: Mapping[str, JSON] = NONE  # what a later version keeps in the state: it gets that back as it was

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def steps(self) -> int:
        return self.plan.steps if self.plan else 0

    def but(self, **changes: Any) -> Run:
        """The run with some fields changed."""
        values = list(self)
        for name, value in changes.items():
            values[_PLACE[name]] = value
        return tuple.__new__(Run, values)

    def move(self, status: str, **changes: Any) -> Run:
        """The run in another status; a move the table does not list is a bug and raises ``ValueError``."""
        if status not in TRANSITIONS[self.status]:
            raise ValueError(f"run {self.id}: {self.status} cannot become {status}")
        return self.but(status=status, **changes)

    def state_json(self) -> dict[str, JSON]:
        """What the ``state`` column holds: everything that has no column of its own."""
        state: dict[str, JSON] = dict(self.beyond)
        if self.plan is not None:
            state["vars"] = self.plan.vars
            state["cursor"] = self.plan.cursor
            if self.plan.undo:
                state["undo"] = self.plan.undo
            if self.plan.agents:
                state["agents"] = self.plan.agents
        if self.open:
            state["open"] = {str(step): opened.packed() for step, opened in self.open.items()}
        if self.holds:
            state["holds"] = dict(self.holds)
        if self.halted:
            state["halted"] = dict(self.halted)
        if self.cheaper:
            state["cheaper"] = dict(self.cheaper)
        if self.models:
            state["models"] = {alias: price.packed() for alias, price in self.models.items()}
        if self.tools:
            state["tools"] = {tool: tuple(price) for tool, price in self.tools.items()}
        if self.plan_hash:
            state["plan"] = self.plan_hash
        if self.cancel_reason is not None:
            state["cancel"] = self.cancel_reason
        if self.priority != 5:
            state["priority"] = self.priority
        if self.steered_ms:
            state["steered"] = self.steered_ms
        if self.slot:
            state["slot"] = True
        if self.parent is not None:
            state["parent"] = [str(self.parent.run), *self.parent[1:]]
        if self.forked is not None:
            state["forked"] = self.forked
        if self.tally is not None:
            state["tally"] = dict(self.tally)
        if self.starts:
            state["starts"] = self.starts
        if self.expected_micro is not None:
            state["expected"] = self.expected_micro
        if self.corrections:
            state["corrections"] = self.corrections
        if self.short:
            state["short"] = {str(step): tuple(shortage) for step, shortage in self.short.items()}
        return state


def child_id(run: UUID, step: int, attempt: int) -> UUID:
    """The run that an attempt of a workflow task starts."""
    return uuid5(run, f"{step}.{attempt}")


def without(table: Map[str, Any], key: str) -> Map[str, Any]:
    """The table less one entry, if it has it."""
    return table.delete(key) if key in table else table


_PLACE = {name: place for place, name in enumerate(Run._fields)}
_OPEN, _SHORT = len(OpenStep._fields), len(Shortage._fields)


_STATE = frozenset((
    "vars", "cursor", "undo", "agents", "open", "holds", "halted", "cheaper", "models", "tools", "plan", "cancel",
    "priority", "steered", "slot", "parent", "forked", "tally", "starts", "expected", "corrections", "short",
))  # fmt: skip
"""What ``Run.state_json`` packs."""


def unpack_state(state: Mapping[str, JSON], steps: int) -> dict[str, Any]:
    """The keyword arguments of ``Run`` that ``Run.state_json`` packed, in this version, an earlier or a later one:
    lists may be longer than is known here, and members that are not known are kept for whoever knows them."""
    fields: dict[str, Any] = {}
    if unknown := state.keys() - _STATE:
        fields["beyond"] = {name: state[name] for name in sorted(unknown)}
    if "vars" in state:
        fields["plan"] = PlanState(state["vars"], state["cursor"], steps, state.get("undo"), state.get("agents"))
    if "open" in state:
        fields["open"] = Map({int(step): OpenStep(*opened[:_OPEN]) for step, opened in state["open"].items()})
    if "holds" in state:
        fields["holds"] = Map(state["holds"])
    if "halted" in state:
        known = state["halted"]  # without names where an earlier version wrote it
        fields["halted"] = Map(known if isinstance(known, dict) else dict.fromkeys(known, ""))
    if "cheaper" in state:  # a version that did not know it may have settled some of these holds
        held = state.get("holds", {})
        fields["cheaper"] = Map({key: alias for key, alias in state["cheaper"].items() if key in held})
    if "models" in state:
        fields["models"] = {alias: Price.unpacked(price) for alias, price in state["models"].items()}
    if "tools" in state:
        fields["tools"] = {tool: ToolPrice(*price[: len(ToolPrice._fields)]) for tool, price in state["tools"].items()}
    fields["plan_hash"] = state.get("plan", "")
    fields["cancel_reason"] = state.get("cancel")
    fields["priority"] = state.get("priority", 5)
    fields["steered_ms"] = state.get("steered", 0)
    fields["slot"] = state.get("slot", False)
    if "parent" in state:
        around, *place = state["parent"]
        fields["parent"] = Parent(UUID(around), *place[: len(Parent._fields) - 1])
    fields["forked"] = state.get("forked")
    if "tally" in state:
        fields["tally"] = Map({task: tuple(counts) for task, counts in state["tally"].items()})
    fields["starts"] = state.get("starts", NONE)
    fields["expected_micro"] = state.get("expected")
    fields["corrections"] = state.get("corrections", 0)
    short = NOBODY
    if "short" in state:
        for step, shortage in state["short"].items():
            short = short.set(int(step), Shortage(*shortage[:_SHORT]))
    for step, opened in fields.get("open", EMPTY).items():
        if opened.waits in ("budget", "approval") and step not in short:  # a version that knew neither wrote it since
            short = short.set(step, Shortage(RUN, "total", 0))
    fields["short"] = short
    return fields


def diagram() -> str:
    """``TRANSITIONS`` as a Mermaid state diagram, for the README that is tested against it."""
    first = next(iter(TRANSITIONS))
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    for status, after in TRANSITIONS.items():
        lines += [f"    {status} --> {next_status}" for next_status in sorted(after)]
    lines += [f"    {status} --> [*]" for status in sorted(TERMINAL)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())
