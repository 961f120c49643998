"""The event that travels: CloudEvents 1.0 attributes as one frozen value, whatever road it came by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
Scalar: TypeAlias = str | int | bool

TYPE_PREFIX = "agentflow."
TYPE_SUFFIX = ".v1"
JSON_TYPE = "application/json"
MAX_EVENT_BYTES = 1024 * 1024
"""Most bytes of one event: attributes and payload in binary mode, the document in structured mode."""
MAX_BATCH = 1000
"""Most events in one HTTP batch."""


def full_type(name: str) -> str:
    """The CloudEvent type of a catalogue name: ``step.completed`` becomes ``agentflow.step.completed.v1``."""
    return f"{TYPE_PREFIX}{name}{TYPE_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent.

    ``data`` is a JSON value, ``bytes`` for what is neither JSON nor text, or None. ``tenant`` is what the
    content said until an edge overrules it: see ``with_tenant``. The mapping of attributes to fields:
    ``tenantid`` → tenant, ``traceparent``, ``tracestate`` and ``dataref`` → the fields of that name, every
    other extension attribute → ``extensions``.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    tenant: UUID | None = None
    data: JSON | bytes = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    dataref: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    extensions: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The catalogue name (``step.completed``) of one of our events; the full type of any other."""
        kind = self.type
        if kind.startswith(TYPE_PREFIX) and kind.endswith(TYPE_SUFFIX):
            return kind[len(TYPE_PREFIX) : -len(TYPE_SUFFIX)]
        return kind

    @property
    def ours(self) -> bool:
        """Whether the type is in AgentFlow's own namespace, which outsiders may not use."""
        return self.type.startswith(TYPE_PREFIX)

    def with_tenant(self, tenant: UUID) -> Event:
        """The same event owned by ``tenant``: how an edge overrules whatever the content claimed."""
        return self if self.tenant == tenant else replace(self, tenant=tenant)

    def with_data(self, data: JSON | bytes, *, dataref: str | None = None) -> Event:
        """The same event with other data, for moving a payload into and out of the claim check."""
        return replace(self, data=data, dataref=dataref)
