"""Compiled plans, kept while they are used: a version never changes, so a plan is read and compiled once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from agentflow.core.plan import Plan
from agentflow.errors import Invalid, Unreadable
from agentflow.wire.document import compile_stored

Key = tuple[UUID, str, int]
Versions = Sequence[int | None]
"""Which versions may be chosen: from, to; None: no bound."""

ANY: Versions = (None, None)


class Reader(Protocol):
    """Reads a workflow's newest version, and a version with its document."""

    async def newest(self, tenant: UUID, name: str, versions: Versions) -> int | None: ...

    async def workflow(
        self, tenant: UUID, name: str, version: int | None
    ) -> tuple[int, Mapping[str, Any]] | None: ...


class Plans:
    """A bounded cache of compiled plans by (tenant, workflow, version)."""

    def __init__(self, size: int = 1000) -> None:
        self._plans: OrderedDict[Key, Plan] = OrderedDict()
        self._size = size

    def get(self, tenant: UUID, name: str, version: int) -> Plan | None:
        return self._plans.get((tenant, name, version))

    async def ensure(
        self, reader: Reader, tenant: UUID, name: str, version: int | None, versions: Versions = ANY
    ) -> int | None:
        """Have a plan at hand, the newest of ``versions`` where none is named; returns its version, or None when there
        is no such workflow. ``Unreadable``: it was accepted once, and this version can't make a plan of it."""
        if version is None:
            version = await reader.newest(tenant, name, versions)
        if version is None:
            return None
        if (tenant, name, version) in self._plans:
            self._plans.move_to_end((tenant, name, version))
            return version
        found = await reader.workflow(tenant, name, version)
        if found is None:
            return None
        number, document = found
        if (tenant, name, number) not in self._plans:
            try:
                self._plans[tenant, name, number] = compile_stored(document)
            except Invalid as fault:
                said = f"{name} version {number}, as another version of us has accepted it: {fault}"
                raise Unreadable(said) from fault
            if len(self._plans) > self._size:
                self._plans.popitem(last=False)
        return number
