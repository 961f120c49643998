"""Who is asking: a bearer API key, looked up among the keys of the tenant it claims."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from agentflow.errors import Rejected
from agentflow.store.api_keys import parse

TTL_S = 5.0
"""A revoked key works for at most this long."""
MAX_KEYS = 10_000


class KeyStore(Protocol):
    """Where hashes of keys are kept."""

    async def key_hash(self, tenant: UUID, key_id: str) -> bytes | None: ...


class Keys:
    """Checks API keys. Remembers the hashes it has read for a few seconds, never the keys."""

    def __init__(self, store: KeyStore, pepper: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._hashes: OrderedDict[tuple[UUID, str], tuple[bytes, float]] = OrderedDict()

    async def owner(self, authorization: str | None) -> tuple[UUID, str]:
        """The tenant whose key the Authorization header holds, and the key's id; ``Rejected`` (unauthorized) otherwise.

        A malformed, an unknown and a revoked key are told apart by nobody.
        """
        if not authorization:
            raise _refusal("there is no API key")
        scheme, _, text = authorization.partition(" ")
        key = parse(text.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise _refusal("the API key is not valid")
        stored = await self._hash(key.tenant, key.id)
        if not key.matches(stored, self._pepper):
            raise _refusal("the API key is not valid")
        return key.tenant, key.id

    async def _hash(self, tenant: UUID, key_id: str) -> bytes | None:
        known = self._hashes.get((tenant, key_id))
        if known is not None and known[1] > self._clock():
            return known[0]
        stored = await self._store.key_hash(tenant, key_id)
        self._hashes.pop((tenant, key_id), None)
        # Only what exists is remembered: guessing fills no memory, and a new key works at once.
        if stored is not None:
            self._hashes[tenant, key_id] = (stored, self._clock() + TTL_S)
            if len(self._hashes) > MAX_KEYS:
                self._hashes.popitem(last=False)
        return stored


def _refusal(message: str) -> Rejected:
    mend = "send Authorization: Bearer af_…; a key is made with: agentflow key create"
    return Rejected(message, code="unauthorized", mend=mend)
