"""A message between functions, before it has an envelope."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID


class Message(NamedTuple):
    """What one function tells another about a run.

    ``name`` is the catalogue's, ``key`` is unique within the run, so that ``run:key`` is the event's id wherever
    and however often it is made; ``data`` is JSON of the shape the catalogue gives the name.
    """

    name: str
    tenant: UUID
    run: UUID
    key: str
    data: dict[str, Any]
    trace: str | None = None

    @property
    def id(self) -> str:
        return f"{self.run}:{self.key}"
