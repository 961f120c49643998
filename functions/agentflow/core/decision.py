"""What a function decides: the run's next value, rows to write and messages to send. Values only.

``decide(run, message, facts) -> Decision`` is the shape of every pure function: the same arguments give the
same decision, on any host. Rows are written and messages sent by the reactor, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from agentflow.core.budgets import UNLIMITED, Headroom
from agentflow.core.message import Message
from agentflow.core.money import Count
from agentflow.core.plan import Plan
from agentflow.core.price import Price, ToolPrice
from agentflow.core.run import OpenStep, Run

JSON = Any

CHILD = "workflow"
"""In place of a price list's version: the entry is what a child run may spend or has spent, which its own entries tell
the tenant's account."""

CORRECTION = "correction"
"""The same for an entry that no call stands behind: an administrator has made it."""

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
    """``entry`` is hold, dispatch, settle, release or correct; ``held_micro`` is what it adds to or takes from the
    hold."""

    step: int
    attempt: int
    entry: str
    amount_micro: int
    held_micro: int
    price: str
    usage: Mapping[str, JSON] | None = None


class Corrected(NamedTuple):
    """An administrator's correction of what was spent: so much more, or less, in a ``scope`` (``run``: the run that it
    is decided upon, whose entry says the same). ``key``: the one it counts once for."""

    tenant: UUID
    key: str
    scope: str
    amount_micro: int
    reason: str
    by: str
    request_hash: str
    step: int | None = None


class PeriodEnded(NamedTuple):
    """The period of a scope's account is over: it is rolled now, and not only by whoever charges it next."""

    tenant: UUID
    scope: str


class Spent(NamedTuple):
    """What one call has come to, for the reports: of which task (and agent), what was called, who serves it and which
    price counted. ``tokens`` are those of ``spending.TOKENS``. Kind workflow: a child run, whose own calls count too.
    """

    task: str
    agent: str
    kind: str
    provider: str
    name: str
    price: str
    tokens: tuple[int, ...]
    ms: int
    cost_micro: int
    held_micro: int


class RunSpent(NamedTuple):
    """What a run has come to, for what the next one is expected to cost. ``tasks``: by task how often it could have
    started, calls, tokens in and out, and micro-dollars. ``runs`` 0: more of one that is counted. ``expected_micro``:
    what was expected of it."""

    runs: int
    status: str
    tasks: Mapping[str, tuple[int, ...]]
    cost_micro: int
    expected_micro: int | None = None


class Waiting(NamedTuple):
    """A step waits for headroom: it is woken when the scope has so much, in the order of ``since_ms``, and in any case
    after ``after_ms``, when the period ends."""

    step: int
    attempt: int
    scope: str
    period: str
    needed_micro: int
    after_ms: int
    since_ms: int


class Refused(NamedTuple):
    """A hold that did not fit: so much is needed in the scope before it is worth another try."""

    scope: str
    needed_micro: int


class Left(NamedTuple):
    """A step has stopped waiting for a scope's account, and may have been woken for what it does not take: whoever else
    waits is looked at again."""

    scope: str


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
    | Corrected
    | PeriodEnded
    | Spent
    | RunSpent
    | Refused
    | Waiting
    | Left
    | Decided
)


class Decision(NamedTuple):
    """``run`` is the run's next value (None: unchanged or there is none). Where there is none, only rows that name
    their tenant can be written."""

    run: Run | None = None
    rows: tuple[Row, ...] = ()
    messages: tuple[Message, ...] = ()


NOTHING = Decision()


class Facts(NamedTuple):
    """What a decision may know besides the run and the message; read in the same transaction.

    ``now_ms``: the database's clock, milliseconds since the epoch. ``plan``/``version``: the run's compiled plan.
    ``price(alias)``: the model an alias stands for today, and what it costs the tenant. ``tool_price(name)``: what the
    tenant was told of a tool. ``tokens(alias)``: what counts the tokens of texts, where a tokenizer is at hand.
    ``window(alias)``: how much a model takes, where that is known.
    ``headroom``: the tenant's accounts. ``step_input``: the input of the step a retry timer names. ``triggered``: for
    event.received, the plans that declare a trigger on the event's type (by workflow, with version) and the steps
    subscribed to it (run id, step). ``waits``: whether a run that is asked for has to wait for its turn. ``claimed``:
    whether a halted call may have been made. ``template``: the workflow that has reached the plan's goal before.
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
    claimed: bool = False
    template: str | None = None
    tool_price: Callable[[str], ToolPrice | None] | None = None
    tokens: Callable[[str], Count | None] | None = None
    window: Callable[[str], int | None] | None = None
