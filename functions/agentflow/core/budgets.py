"""Budgets: the accounts a run's money is charged to, and what is left in them. Integer micro-dollars.

A tenant's accounts have a scope (``tenant``, ``workflow:<name>`` or ``budget:<name>``) and a period (day, month or
total); a scope that has none is not limited. A run's own limit is in its row, and not among these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from agentflow.core.run import Run
from agentflow.errors import Rejected

PERIODS = ("day", "month", "total")
TENANT = "tenant"
EXHAUSTED = "budget_exhausted"
"""The code of what was not done because an account has not enough left."""
MAX_MICRO = 10**15
"""Most that a limit may be: a thousand million dollars."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Account(NamedTuple):
    """A limit and what has been charged to it. ``limit_micro`` None: none. ``ends_ms``: when its period ends, None in
    total."""

    scope: str
    period: str
    limit_micro: int | None
    spent_micro: int = 0
    held_micro: int = 0
    frozen: bool = False
    ends_ms: int | None = None

    @property
    def left_micro(self) -> int | None:
        """What may still be held; None: as much as one likes."""
        if self.frozen:
            return 0
        if self.limit_micro is None:
            return None
        return max(0, self.limit_micro - self.spent_micro - self.held_micro)

    def admits(self, amount: int) -> bool:
        left = self.left_micro
        return not self.frozen and (left is None or amount <= left)

    def told(self) -> dict[str, int | str | None]:
        """The account as events and refusals tell it."""
        return {
            "scope": self.scope,
            "period": self.period,
            "limit_micro": self.limit_micro or 0,
            "spent_micro": self.spent_micro,
            "held_micro": self.held_micro,
            "remaining_micro": self.left_micro or 0,
            "resets_at": self.resets_at,
        }

    @property
    def who(self) -> str:
        """Whose account it is, in words."""
        return f"the {self.scope}" if self.scope in (TENANT, "run", "task") else self.scope

    def said(self) -> str:
        """What is left of it, in words."""
        who = self.who
        if self.frozen:
            return f"{who} is frozen: a provider has billed more than was held"
        when = {"day": " for the day", "month": " for the month"}.get(self.period, "")
        until = f" until {self.resets_at}" if self.ends_ms is not None else ""
        parts = f"{self.spent_micro} spent, {self.held_micro} held"
        return f"{who} has {self.left_micro} left of {self.limit_micro}{when}{until} ({parts})"

    @property
    def resets_at(self) -> str | None:
        """When its period ends, as text."""
        return None if self.ends_ms is None else moment(self.ends_ms)


class Headroom(NamedTuple):
    """A tenant's accounts by scope. Never changed: ``charged`` makes the next value."""

    accounts: Mapping[str, Sequence[Account]] = MappingProxyType({})

    def of(self, scopes: Iterable[str]) -> list[Account]:
        """The accounts of some scopes, in the order in which they are charged."""
        mine = self.accounts
        return [account for scope in sorted(scopes) for account in mine.get(scope, ())] if mine else []

    def short(self, scopes: Iterable[str], amount: int) -> Account | None:
        """The account that does not admit so much; of several the one that has least."""
        refusing = [account for account in self.of(scopes) if not account.admits(amount)]
        return min(refusing, key=lambda account: account.left_micro or 0, default=None)

    def charged(self, scopes: Iterable[str], held: int, spent: int = 0) -> Headroom:
        """What is there after a hold, a settlement or a release."""
        found = self.accounts
        if not found:
            return self
        changed = {
            scope: [
                account._replace(
                    held_micro=account.held_micro + held, spent_micro=account.spent_micro + spent
                )
                for account in found[scope]
            ]
            for scope in scopes
            if scope in found
        }
        return Headroom({**found, **changed}) if changed else self


UNLIMITED = Headroom()


def headroom(accounts: Iterable[Account]) -> Headroom:
    """A tenant's accounts, by scope."""
    by_scope: dict[str, list[Account]] = {}
    for account in accounts:
        by_scope.setdefault(account.scope, []).append(account)
    return Headroom(by_scope)


def scopes(run: Run, *, child: bool = False) -> tuple[str, ...]:
    """What a run's entry is charged to. What it holds for a ``child``, and settles, counts for its workflow only: the
    child's own entries count for the rest."""
    workflow = f"workflow:{run.workflow}"
    if child:
        return (workflow,)
    return (TENANT, workflow) if run.budget is None else (f"budget:{run.budget}", TENANT, workflow)


def checked_scope(text: str) -> str:
    """The scope; ``Rejected`` when there can be none of that name."""
    kind, colon, name = text.partition(":")
    if text == TENANT or (colon and kind in ("workflow", "budget") and NAME.fullmatch(name)):
        return text
    mend = "use tenant, workflow:NAME or budget:NAME"
    raise Rejected(f"{text[:100]!r} is not a budget's scope", code="bad_scope", path="scope", mend=mend)


def checked_period(text: str) -> str:
    """The period; ``Rejected`` when there is none of that name."""
    if text in PERIODS:
        return text
    mend = f"use {', '.join(PERIODS)}"
    raise Rejected(f"{text[:100]!r} is not a period", code="bad_period", path="period", mend=mend)


def moment(ms: int) -> str:
    """Milliseconds since the epoch as the time that people read."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
