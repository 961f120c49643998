"""Limits: how much may be in progress at once and start per second, by tenant and scope.

What a scope counts:

    tenant            the tenant's runs
    workflow:<name>   runs of a workflow
    model:<alias>     calls of a model;  model:*  of all models together
    tool:<name>       calls of a tool;   tool:*   of all tools together

The operator's (nil) tenant has the same scopes for all tenants together, and ``tenant:<id>`` for the runs and the
weight of one: what a tenant may not decide for itself.

A *gate* is what requests wait before, one for each model, tool and workflow of a tenant: ``model:<alias>``,
``tool:<name>`` or, for runs, ``workflow:<name>``. It is all that must be known to tell which scopes count a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple
from uuid import UUID

from agentflow.errors import Rejected

OPERATOR = UUID(int=0)
MAX_WEIGHT = 1000
MAX_COUNT = 1_000_000
MIN_RATE, MAX_RATE = 0.001, 1_000_000.0
ALL = "*"
RUNS = "runs"
GATED = "gated"  # the key of a run's request that has to wait before a gate
SLOT = "slot"  # the key of the row that stands for such a run from its planning to its end

Scope = tuple[UUID, str]

_WORKFLOW = re.compile(r"workflow:[a-z][a-z0-9_-]{0,63}")
_CALLS = re.compile(r"(model|tool):[!-~]{1,128}")  # an alias may be any printable name without blanks


@dataclass(frozen=True, slots=True)
class Limit:
    """None: no limit. ``burst`` is how many may start at once after a pause; None: one second's worth."""

    concurrency: int | None = None
    per_second: float | None = None
    burst: int | None = None
    weight: int = 1

    @property
    def binds(self) -> bool:
        """Whether anything has to wait for it."""
        return self.concurrency is not None or self.per_second is not None

    @property
    def depth(self) -> int:
        """Most tokens its bucket holds."""
        return self.burst or max(1, ceil(self.per_second or 0))


class Scopes(NamedTuple):
    """The scopes that count a request: those of few others, and those of everything its gate's ``resource`` is."""

    resource: str
    own: tuple[Scope, ...]
    shared: tuple[Scope, ...]


def scopes_of(tenant: UUID, gate: str) -> Scopes:
    """Which scopes count what waits before a tenant's gate."""
    kind, _, _ = gate.partition(":")
    if kind == "workflow":
        own = ((tenant, gate), (tenant, "tenant"), (OPERATOR, gate), (OPERATOR, f"tenant:{tenant}"))
        return Scopes(RUNS, own, ((OPERATOR, "tenant"),))
    every = f"{kind}:{ALL}"
    return Scopes(gate, ((tenant, gate), (tenant, every)), ((OPERATOR, gate), (OPERATOR, every)))


class Limits:
    """The limits of the tenants that were told of, and of no others."""

    def __init__(self, limits: Iterable[tuple[UUID, str, Limit]] = ()) -> None:
        self._limits: dict[Scope, Limit] = {}
        self._of: dict[UUID, list[Scope]] = {}
        self._binding: dict[tuple[UUID, str], bool] = {}
        self.any = False
        """Whether there is any limit that something would have to wait for."""
        for tenant, scope, limit in limits:
            self._add(tenant, scope, limit)
        self._changed()

    def tell(self, tenants: Iterable[UUID], limits: Iterable[tuple[UUID, str, Limit]]) -> None:
        """These are all limits of these tenants."""
        for tenant in tenants:
            for known in self._of.pop(tenant, ()):
                del self._limits[known]
        for tenant, scope, limit in limits:
            self._add(tenant, scope, limit)
        self._changed()

    def get(self, scope: Scope) -> Limit | None:
        """The limit of a scope."""
        return self._limits.get(scope)

    def items(self) -> Iterable[tuple[Scope, Limit]]:
        """Every limit."""
        return self._limits.items()

    def bind(self, tenant: UUID, gate: str) -> bool:
        """Whether requests of a tenant have to wait before a gate."""
        if not self.any:
            return False
        known = self._binding.get((tenant, gate))
        if known is None:
            scopes = scopes_of(tenant, gate)
            limits = (self._limits.get(scope) for scope in (*scopes.own, *scopes.shared))
            known = any(limit is not None and limit.binds for limit in limits)
            if len(self._binding) >= 100_000:
                self._binding.clear()
            self._binding[tenant, gate] = known
        return known

    def weights(self) -> dict[UUID, int]:
        """Tenants whose share is not 1."""
        prefix = "tenant:"
        return {
            UUID(scope.removeprefix(prefix)): limit.weight
            for (tenant, scope), limit in self._limits.items()
            if tenant == OPERATOR and scope.startswith(prefix) and limit.weight != 1
        }

    def _add(self, tenant: UUID, scope: str, limit: Limit) -> None:
        if (tenant, scope) not in self._limits:
            self._of.setdefault(tenant, []).append((tenant, scope))
        self._limits[tenant, scope] = limit

    def _changed(self) -> None:
        self._binding.clear()
        self.any = any(limit.binds for limit in self._limits.values())


def checked_scope(text: str, tenant: UUID) -> str:
    """The scope, as it is kept; ``Rejected`` when it is none that this tenant can limit."""
    if text == "tenant" or _WORKFLOW.fullmatch(text) or _CALLS.fullmatch(text):
        return text
    kind, colon, name = text.partition(":")
    if kind == "tenant" and colon:
        if tenant != OPERATOR:
            mend = "set your own limit with scope tenant; other tenants' are the operator's"
            raise Rejected("is the operator's to set", code="bad_scope", path="scope", mend=mend)
        try:
            return f"tenant:{UUID(name)}"
        except ValueError:
            mend = "give the id that agentflow tenant create printed"
            raise Rejected("names no tenant", code="bad_scope", path="scope", mend=mend) from None
    mend = "use tenant, workflow:<name>, model:<alias>, model:*, tool:<name> or tool:*"
    raise Rejected(f"{text[:100]!r} is no scope", code="bad_scope", path="scope", mend=mend)


def check(scope: str, tenant: UUID, limit: Limit) -> None:
    """``Rejected`` when the limit makes no sense for its scope."""
    if limit.weight != 1 and not (tenant == OPERATOR and scope.startswith("tenant:")):
        mend = "have the operator set it: scope tenant:<id>, with a key of the operator's tenant"
        raise Rejected("is the operator's to set", code="bad_limit", path="weight", mend=mend)
    if limit.burst is not None and limit.per_second is None:
        mend = "give per_second, too"
        raise Rejected("means nothing without a rate", code="bad_limit", path="burst", mend=mend)
    if not limit.binds and limit.weight == 1:
        mend = "give concurrency or per_second; DELETE removes a limit"
        raise Rejected("limits nothing", code="bad_limit", path="concurrency", mend=mend)
