"""What a function decides: the run's next value, rows to write and messages to send. Values only.

``decide(run, message, facts) -> Decision`` is the shape of every pure function: the same arguments give the
same decision, on any host. Rows are written and messages sent by the reactor, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from agentflow.core.message import Message
from agentflow.core.money import Count
from agentflow.core.plan import Plan
from agentflow.core.price import Price, ToolPrice
from agentflow.core.run import OpenStep, Run

JSON = Any

CHILD = "workflow"
"""In place of a price list's version: the entry is what a child run may spend or has spent, which its own entries tell
the tenant's account."""

PERSON = "agentflow.human"
"""What a step that waits for a person subscribes to: no event has this type."""


class StepClosed(NamedTuple):
    """A step's attempt has its one and only result (``status`` succeeded or failed), or was halted.

    ``opened`` is what was known of it while it was open; ``input`` what it was given, None where its request says so.
    """

    step: int
    attempt: int
    opened: OpenStep
    kind: str
    status: str
    input: Mapping[str, JSON] | None = None
    output: Mapping[str, JSON] | None = None
    error: Mapping[str, JSON] | None = None
    usage: Mapping[str, JSON] | None = None
    held_micro: int = 0
    cost_micro: int = 0


class TimerSet(NamedTuple):
    """Wake the run ``after_ms`` from now, by the database's clock."""

    key: str
    kind: str
    after_ms: int
    step: int | None = None
    attempt: int | None = None


class TimerCleared(NamedTuple):
    key: str


class Subscribed(NamedTuple):
    step: int
    event_type: str


class Unsubscribed(NamedTuple):
    step: int


class Withdrawn(NamedTuple):
    """A request that nobody waits for any more: its twin goes, and whoever works on it may stop. ``once``: its call may
    be claimed, and the claim goes, too."""

    key: str
    once: bool = False


class RunEnded(NamedTuple):
    """The run is over: its timers (but for holds) and subscriptions go."""


class SlotTaken(NamedTuple):
    """The run waited for its turn: from now until it ends, a row stands for it among those in progress."""


class PlanFrozen(NamedTuple):
    """A plan that a model has written is a workflow from now on; its name holds its hash."""

    name: str
    document: Mapping[str, JSON]


class TemplateKept(NamedTuple):
    """The workflow has reached the goal that ``key`` stands for: the next run for it need not have a plan written."""

    key: str
    workflow: str


class LedgerEntry(NamedTuple):
    """``entry`` is hold, settle or release; ``held_micro`` is what it adds to or takes from the hold."""

    step: int
    attempt: int
    entry: str
    amount_micro: int
    held_micro: int
    price: str
    usage: Mapping[str, JSON] | None = None


class Decided(NamedTuple):
    """A line of history: what was decided upon, and what it led to (``Advance.changed``, one per advance)."""

    name: str
    data: Mapping[str, JSON]
    commands: tuple[Any, ...] = ()
    changed: tuple[JSON, ...] = ()


Row = (
    StepClosed
    | TimerSet
    | TimerCleared
    | Subscribed
    | Unsubscribed
    | Withdrawn
    | RunEnded
    | SlotTaken
    | PlanFrozen
    | TemplateKept
    | LedgerEntry
    | Decided
)


class Decision(NamedTuple):
    """``run`` is the run's next value (None: unchanged or there is none)."""

    run: Run | None = None
    rows: tuple[Row, ...] = ()
    messages: tuple[Message, ...] = ()


NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class Headroom:
    """What a tenant may still spend, in micro-dollars; None: unlimited."""

    limit_micro: int | None = None
    spent_micro: int = 0
    held_micro: int = 0
    frozen: bool = False

    def admits(self, amount: int) -> bool:
        if self.frozen:
            return False
        return self.limit_micro is None or self.spent_micro + self.held_micro + amount <= self.limit_micro


UNLIMITED = Headroom()


class Facts(NamedTuple):
    """What a decision may know besides the run and the message; read in the same transaction.

    ``now_ms``: the database's clock, milliseconds since the epoch. ``plan``/``version``: the run's compiled plan.
    ``price(alias)``: the model an alias stands for today, and what it costs the tenant. ``tool_price(name)``: what the
    tenant was told of a tool. ``tokens(alias)``: what counts the tokens of texts, where a tokenizer is at hand.
    ``headroom``: the tenant's. ``step_input``: the input of the step a retry timer names. ``triggered``: for
    event.received, the plans that declare a trigger on the event's type (by workflow, with version) and the steps
    subscribed to it (run id, step). ``waits``: whether a run that is asked for has to wait for its turn. ``template``:
    the workflow that has reached the plan's goal before.
    """

    now_ms: int
    plan: Plan | None = None
    version: int | None = None
    price: Callable[[str], Price] | None = None
    headroom: Headroom = UNLIMITED
    step_input: Mapping[str, JSON] | None = None
    triggered: tuple[tuple[Plan, int], ...] = ()
    subscribers: tuple[tuple[UUID, int], ...] = ()
    waits: bool = False
    template: str | None = None
    tool_price: Callable[[str], ToolPrice | None] | None = None
    tokens: Callable[[str], Count | None] | None = None
