"""Pricing: what models and tools cost the tenants of a host.

What a tenant was told is read together with its limits (``Gating``): when it is first seen, when a hint says that it
has changed, and every half a minute. Tenants that were told nothing are not kept here, and cost a look into a dict.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from agentflow.core.money import Count
from agentflow.core.price import Price, Told, ToolPrice, told_price, told_tool

Read = Callable[[Sequence[UUID]], Awaitable[list[tuple[UUID, str, int, Any]]]]


class Catalogue(Protocol):
    """Which models there are, and what they cost those who were told nothing else."""

    def resolve(self, alias: str, told: Told | None = None) -> Price: ...

    def window(self, alias: str) -> int | None: ...


class Pricing:
    """``models``: None where nothing is planned. ``read`` gives what tenants were told: (tenant, scope, version, card).
    ``tokens`` gives what counts the tokens of an alias' texts, where a tokenizer is configured."""

    def __init__(
        self, models: Catalogue | None, read: Read, tokens: Callable[[str], Count | None] | None = None
    ) -> None:
        self.tokens = tokens
        self._models = models
        self._read = read
        self._told: dict[UUID, dict[str, Price | ToolPrice]] = {}

    async def learn(self, tenants: set[UUID]) -> None:
        """Read what tenants were told. ``RetryLater`` when the store can't be reached."""
        if self._models is None:
            return
        found: dict[UUID, dict[str, Price | ToolPrice]] = {}
        for tenant, scope, version, card in await self._read(sorted(tenants)):
            price = told_tool(card, version) if scope.startswith("tool:") else told_price(card, version)
            found.setdefault(tenant, {})[scope] = price
        for tenant in tenants:
            self._told.pop(tenant, None)
        self._told.update(found)

    def price(self, tenant: UUID) -> Callable[[str], Price]:
        """What a model costs a tenant, by its alias."""
        assert self._models is not None, "only plan asks for prices"
        resolve, told = self._models.resolve, self._told.get(tenant)
        if told is None:
            return resolve

        def of_model(name: str) -> Price | None:
            found = told.get(f"model:{name}")
            return found if isinstance(found, Price) else None

        return lambda alias: resolve(alias, of_model)

    def window(self, alias: str) -> int | None:
        """How many tokens a model takes; None: nobody knows."""
        return self._models.window(alias) if self._models is not None else None

    def tool_price(self, tenant: UUID) -> Callable[[str], ToolPrice | None] | None:
        """What a tenant was told of its tools; None: nothing."""
        told = self._told.get(tenant)
        if told is None:
            return None

        def of_tool(name: str) -> ToolPrice | None:
            found = told.get(f"tool:{name}")
            return found if isinstance(found, ToolPrice) else None

        return of_tool
