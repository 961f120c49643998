"""API keys: the text a client holds and the hash that is stored.

``af_<tenant uuid, 32 hex>_<key id>_<secret>``. The tenant and the id are no secrets: they say where to look.
The secret is 256 random bits; only its HMAC-SHA-256 under the pepper is stored, so that neither a leaked
database nor a leaked pepper alone is a key.
"""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

_FORM = re.compile(r"af_([0-9a-f]{32})_([a-z0-9]{1,64})_([A-Za-z0-9_-]{43})")
MAX_LENGTH = 256


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key in the clear; ``str()`` is what the client sends, ``repr()`` keeps the secret."""

    tenant: UUID
    id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"af_{self.tenant.hex}_{self.id}_{self.secret}"

    def hashed(self, pepper: str) -> bytes:
        """The 32 bytes that are stored; tenant and id are hashed along, so a row cannot be moved."""
        return hmac.digest(pepper.encode(), str(self).encode(), sha256)

    def matches(self, stored: bytes | None, pepper: str) -> bool:
        """Whether ``stored`` is this key's hash; takes as long when nothing was found (None)."""
        return hmac.compare_digest(self.hashed(pepper), stored or bytes(32)) and stored is not None


def mint(tenant: UUID) -> ApiKey:
    """A new key for a tenant."""
    return ApiKey(tenant, secrets.token_hex(6), secrets.token_urlsafe(32))


def parse(text: str) -> ApiKey | None:
    """The key in ``text``, or None when it has not the form of one."""
    match = _FORM.fullmatch(text) if len(text) <= MAX_LENGTH else None
    return ApiKey(UUID(match.group(1)), match.group(2), match.group(3)) if match else None
