"""What hosts tell each other of gates, as notes of their hints: what waits, what is free, whose limits changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from agentflow.store.changes import Changes

WAITS, FREED, LIMITS = "gate-waits", "gate-freed", "gate-limits"


class News(NamedTuple):
    """``waits``: gates (tenant, gate, highest priority); ``freed``: admitted rows (run, key) that are gone;
    ``limits``: tenants whose limits have changed."""

    waits: Sequence[tuple[UUID, str, int]] = ()
    freed: Sequence[tuple[UUID, str]] = ()
    limits: Sequence[UUID] = ()


def news_of(changes: Changes) -> News:
    """What a commit means for gates."""
    waits = [(tenant, gate, priority) for (tenant, gate), priority in changes.waits.items()]
    return News(waits, changes.freed)


def written(news: News) -> list[str]:
    """The notes that say it."""
    return [
        *(f"{WAITS} {tenant} {priority} {gate}" for tenant, gate, priority in news.waits),
        *(f"{FREED} {run} {key}" for run, key in news.freed),
        *(f"{LIMITS} {tenant}" for tenant in news.limits),
    ]


def read(notes: Iterable[str]) -> News:
    """What notes say of gates."""
    waits, freed, limits = [], [], []
    for note in notes:
        kind, _, rest = note.partition(" ")
        if kind == WAITS:
            tenant, priority, gate = rest.split(" ", 2)
            waits.append((UUID(tenant), gate, int(priority)))
        elif kind == FREED:
            run, key = rest.split(" ", 1)
            freed.append((UUID(run), key))
        elif kind == LIMITS:
            limits.append(UUID(rest))
    return News(waits, freed, limits)
