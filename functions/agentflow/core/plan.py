"""The plan: what a workflow document compiles to. Frozen, made once by ``core.compile``, shared by all its runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from agentflow.core.expr import Expr
from agentflow.core.types import JSON, Mismatch, Type, conform

if TYPE_CHECKING:
    from agentflow.core.machine import Machine
    from agentflow.core.node import Tree

IR_VERSION = 1
"""Raised when the meaning of a compiled plan changes; every run pins it."""

BUILTIN_TOOLS = frozenset({"std.echo", "std.fail"})
"""Tools that need no declaration; the tool runner has exactly these."""

NO_EXPRS: MappingProxyType[str, Expr] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use: steps started, micro-dollars (0 when nothing costs money), wall time."""

    steps: int
    micro: int
    wall_ms: int


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool shipped with the workflow. ``timeout_ms`` None: the task's; ``price_micro`` is per call."""

    name: str
    kind: str
    code: str
    timeout_ms: int | None
    memory_bytes: int
    cpu: float
    output_bytes: int
    price_micro: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """The CloudEvent that starts a run: its type, a condition on it, and where the run's input comes from."""

    type: str
    condition: Expr | None
    input: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the shared table.

    ``inputs`` are typed with ``item`` as json; planners use their own copies where the item's type is known.
    ``files`` names the inputs that hold a file reference. ``timeout_ms`` is None for a wait, ``for_ms`` for
    everything else; ``price_cap_micro`` is the document's ``usd``. ``use`` is '' for a wait.
    """

    name: str
    kind: str
    use: str
    prompt: str
    system: str
    inputs: dict[str, Expr]
    files: frozenset[str]
    out: dict[str, Type] | None
    retry_max: int
    backoff_ms: int
    timeout_ms: int | None
    for_ms: int | None
    match: Expr | None
    key: Expr | None
    max_tokens: int
    price_cap_micro: int | None
    fields: tuple[tuple[str, str, Type], ...] = field(default=(), repr=False)
    """What expressions see of the result: (field, name in CEL, type); field '' is the whole result."""

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
    document: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The canonical document (short forms written out, descriptions kept)."""
