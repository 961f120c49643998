"""The plan: what a workflow document compiles to. Frozen, made once by ``core.compile``, shared by all its runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agentflow.core.expr import Expr
from agentflow.core.types import JSON, Mismatch, Type, conform

if TYPE_CHECKING:
    from agentflow.core.machine import Machine
    from agentflow.core.node import Tree

IR_VERSION = 3
"""Raised when the meaning of a compiled plan changes. A document whose meaning has changed with it says in ``ir`` for
which version it was accepted; see ``core.meaning``."""

"""Tools that need no declaration; the tool runner has exactly these."""

SEPARATOR = "--"
"""Between the name of an agent's task and that of a part of it: no task of a document has it in its name."""

TURN, ANSWER = "turn", "answer"
"""Parts of an agent that are no tools: a turn of its model, and what it calls to give an answer with fields."""

MAX_TOKENS = 1_024
"""Most tokens of a model's reply, where a task does not say."""

ONCE = "once"
"""Declared effects of a tool whose calls are never repeated blindly."""

UNKNOWN = "outcome_unknown"
"""The code of an attempt that may or may not have had its effect; no retry takes it unless it is named there."""

MAX_CALLS = 16
"""Most tools that an agent may call in one turn."""

NO_EXPRS: MappingProxyType[str, Expr] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use: steps started, micro-dollars (0 when nothing costs money), wall time.

    ``preflight``: refuse or warn where it may cost more than there is; '' neither. ``budget``: the named budget that it
    is charged to, unless whoever starts it names another. ``at_limit``: what becomes of steps that do not fit, where
    their tasks do not say: reject, wait or ask.
    """

    steps: int
    micro: int
    wall_ms: int
    preflight: str = ""
    budget: str | None = None
    at_limit: str = "reject"


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool shipped with the workflow. ``timeout_ms`` None: the task's; ``price_micro`` is per call, and what seconds
    cost is added to it; ``inputs`` is what it takes, None where it does not say. ``effects``: none, idempotent or once;
    '' where it does not say, and then its calls may be repeated as those of an idempotent one."""

    name: str
    kind: str
    code: str
    timeout_ms: int | None
    memory_bytes: int
    cpu: float
    output_bytes: int
    price_micro: int
    inputs: dict[str, Type] | None = None
    description: str = ""
    effects: str = ""
    micro_per_million_seconds: int = 0

    @property
    def once(self) -> bool:
        """Whether a call may not be repeated as long as it is not known what became of it."""
        return self.effects == ONCE


@dataclass(frozen=True, slots=True)
class Agent:
    """A model and the tools it may call, by the names that it calls them by."""

    name: str
    model: str
    system: str
    tools: Mapping[str, ToolSpec]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """The CloudEvent that starts a run: its type, a condition on it, where the run's input and its budget come from."""

    type: str
    condition: Expr | None
    input: tuple[tuple[str, Expr], ...]
    budget: Expr | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed attempt is followed by another. ``only`` None: after failures that say that they may pass."""

    max: int = 1
    backoff_ms: int = 1_000
    factor: float = 2.0
    max_backoff_ms: int = 300_000
    jitter: float = 0.25
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()

    def again(self, attempt: int, code: str, *, may_pass: bool) -> bool:
        """Whether another attempt follows the one that failed so."""
        if attempt >= self.max or code in self.never:
            return False
        return may_pass if self.only is None else code in self.only

    def after_ms(self, attempt: int, spread: float) -> int:
        """How long to wait after that attempt; ``spread`` from 0 to 1 chooses within the jitter."""
        wait = min(self.backoff_ms * self.factor ** (attempt - 1), self.max_backoff_ms)
        return int(wait + wait * self.jitter * spread)


@dataclass(frozen=True, slots=True)
class Undo:
    """The task that undoes another, and what it is given: ``inputs`` see the variables and that one's ``result``."""

    task: str
    inputs: dict[str, Expr]


@dataclass(frozen=True, slots=True)
class Child:
    """Which workflow a task runs: the newest version from ``first`` to ``last`` (None: no bound)."""

    workflow: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the shared table.

    ``inputs`` are typed with ``item`` as json; planners use their own copies where the item's type is known.
    ``files`` names the inputs that hold a file reference. ``timeout_ms`` is None for a wait and where a person or
    another workflow may take as long as it likes, ``for_ms`` for all but a wait for some time; a wait until a time has
    an input ``until``. ``price_cap_micro`` is the document's ``usd``. ``use`` is '' for a wait and a compensation.
    ``scope`` is a compensation's: '' is all. ``agent`` and ``turns`` are an agent's; the tasks of its inner steps are
    ``part_of`` it.
    """

    name: str
    kind: str
    use: str
    prompt: str
    system: str
    inputs: dict[str, Expr]
    files: frozenset[str]
    out: dict[str, Type] | None
    retry: Retry
    timeout_ms: int | None
    for_ms: int | None
    match: Expr | None
    key: Expr | None
    max_tokens: int
    price_cap_micro: int | None
    undo: Undo | None = None
    child: Child | None = None
    scope: str = ""
    reply: dict[str, Any] | None = None
    """The JSON Schema of a model's answer that ``out`` cannot say."""
    agent: Agent | None = None
    turns: int = 0
    part_of: str = ""
    min_tokens: int | None = None
    """What a model's reply may be shortened to before a limit; None: half of ``max_tokens``."""
    cheaper: str = ""
    """The model alias that is asked where the own one does not fit."""
    at_limit: str = ""
    """What becomes of a step that does not fit: reject, wait or ask; '' as the plan's limits say."""
    keyed: bool = False
    """Whether it says a key of its own; of a task that only subtrees run, ``key`` is known where it runs."""
    fields: tuple[tuple[str, str, Type], ...] = field(default=(), repr=False)
    """What expressions see of the result: (field, name in CEL, type); field '' is the whole result."""

    def calls_once(self, tools: Mapping[str, ToolSpec]) -> bool:
        """Whether it calls a tool whose calls are never repeated blindly."""
        tool = tools.get(self.use) if self.kind == "tool" else None
        return tool is not None and tool.once

    @property
    def fewest_tokens(self) -> int:
        """The least that a model's reply may be limited to."""
        return self.min_tokens or -(-self.max_tokens // 2)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The models that an llm task may ask, in that order."""
        return (self.use, self.cheaper) if self.cheaper else (self.use,)

    @property
    def most_steps(self) -> int:
        """The most steps that one start of it takes: its own, an agent's turns, its calls in all but the last."""
        if self.agent is None:
            return 1
        return 1 + self.turns + (self.turns - 1) * (MAX_CALLS if self.agent.tools else 0)

    def bind(self, result: JSON) -> dict[str, JSON]:
        """``result`` as the names that expressions read; Mismatch when it is not what the task declares."""
        if result.__class__ is not dict:
            raise Mismatch("must be an object")
        bound = {}
        for name, dotted, type_ in self.fields:
            if not name:
                bound[dotted] = conform(result, type_)
                continue
            if name not in result:
                raise Mismatch("is missing", f".{name}")
            try:
                bound[dotted] = conform(result[name], type_)
            except Mismatch as fault:
                raise fault.under(name) from None
        return bound


def part_name(task: str, part: str) -> str:
    """The name of the task that an agent's inner steps are steps of."""
    return f"{task}{SEPARATOR}{part}"


@dataclass(frozen=True, slots=True)
class Planning:
    """What a model that pursues a goal may plan: the document around its plan, the kind (fsm, bt or any), the tasks.

    ``key`` is of the goal's class and of all that a plan may be made of: plans for one key serve each other as
    templates, where ``cache`` allows it.
    """

    base: dict[str, Any]
    kind: str
    tasks: tuple[str, ...]
    key: str
    cache: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled workflow: the tasks and limits all planners share, and the machine or the tree.

    ``hash`` is the sha256 (hex) of the canonical document. ``input`` and ``vars`` map names to types; ``output``
    is None when the run's result is all its vars.
    """

    kind: str
    name: str
    hash: str
    limits: Limits
    input: dict[str, Type]
    vars: dict[str, Type]
    tasks: dict[str, Task]
    tools: dict[str, ToolSpec]
    trigger: Trigger | None
    output: tuple[tuple[str, Expr], ...] | None
    machine: Machine | None = None
    tree: Tree | None = None
    planning: Planning | None = None
    """Where a model writes the plan, and the machine is what has it written."""
    compensates: bool = False
    """Whether some task undoes what others have done."""
    has_agents: bool = False
    document: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The canonical document (short forms written out, descriptions kept)."""

    @property
    def aliases(self) -> list[str]:
        """The models that its tasks may ask."""
        asking = (task.aliases for task in self.tasks.values() if task.kind == "llm" and task.use)
        return sorted({alias for aliases in asking for alias in aliases})
