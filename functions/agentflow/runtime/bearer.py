"""Keys to a host's doors: who may have a function handle events over HTTP, and who may look at its metrics.

The bridge sends the first of its keys, a door takes any of its own: ``new,old`` is everywhere before ``new`` alone is.
Without a key a push door is for this machine only, unless ``AGENTFLOW_PUSH_OPEN`` says that something else keeps
strangers out. Where both are set, who sends no key may bring clients' events, and nothing that is of a type of ours.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Mapping
from typing import Any, Literal

import orjson
import structlog

from agentflow.config import Settings
from agentflow.errors import Problem, Rejected
from agentflow.observe import metrics

log = structlog.get_logger(__name__)
PUSH_KEY, METRICS_KEY = "AGENTFLOW_PUSH_KEY", "AGENTFLOW_METRICS_KEY"
LEAST = 32
"""Characters of a key, at least."""
REMIND_S = 60.0

Caller = Literal["ours", "outsider", "stranger"]


def bearer_keys(text: str, setting: str) -> list[bytes]:
    """The keys of a setting, the one to send first; ``Rejected`` where one can be guessed or fits no header."""
    keys = [key for part in text.split(",") if (key := part.strip())]
    for place, key in enumerate(keys, 1):
        if len(key) < LEAST or not all("!" <= letter <= "~" for letter in key):
            message = f"key {place} has to be {LEAST} or more letters, digits and signs"
            raise Rejected(message, code="bad_setting", path=setting, mend="e.g. what openssl rand -hex 32 prints")
    return [key.encode() for key in keys]


def bears(headers: Mapping[bytes, bytes], keys: list[bytes]) -> bool:
    """Whether a request has one of the keys; how long that takes says nothing about them."""
    scheme, _, said = headers.get(b"authorization", b"").partition(b" ")
    found = [hmac.compare_digest(said.strip(), key) for key in keys]
    return scheme.lower() == b"bearer" and any(found)


class Lock:
    """What a function's push door asks of whoever comes. ``Rejected`` where it would stand open by mistake."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._keys = bearer_keys(settings.push_key, PUSH_KEY)
        self._open = settings.push_open
        self._refused = 0  # since the last line about it
        self._told_at = -REMIND_S
        if not self._keys and not self._open and not _loopback(settings.http_host):
            message = f"there is no key to the push door at {settings.http_host}"
            mend = "set it to what the bridge has, or AGENTFLOW_PUSH_OPEN=1 where something else keeps strangers out"
            raise Rejected(message, code="no_push_key", path=PUSH_KEY, mend=mend)

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Who asks: ``ours`` may bring everything, an ``outsider`` clients' events, a ``stranger`` nothing."""
        if not self._keys or bears(headers, self._keys):
            return "ours"
        return "outsider" if self._open and b"authorization" not in headers else "stranger"

    async def refuse(self, send: Any) -> None:
        """Answer 401. The log has a line a minute at most, and not a word of what was sent."""
        metrics.push_refused(self._name)
        self._refused += 1
        now = time.monotonic()
        if now - self._told_at >= REMIND_S:
            mend = f"give the bridge the same {PUSH_KEY}; if it has it, find out who else comes here"
            log.warning("pushed without the key: refused", function=self._name, count=self._refused, mend=mend)
            self._told_at, self._refused = now, 0
        await unauthorized(send, PUSH_KEY, f"send Authorization: Bearer with what this function has as {PUSH_KEY}")


async def unauthorized(send: Any, setting: str, mend: str) -> None:
    """Answer 401 with a problem document (RFC 9457) that names the setting, and the mend."""
    from agentflow.control.problems import CHALLENGE, MEDIA_TYPE, document

    code, message = "unauthorized", "the request came without a key, or with another one"
    body = orjson.dumps(document(401, code, message, mend=mend, errors=[Problem(setting, message, mend, code)]))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", CHALLENGE.encode()),
    ]  # fmt: skip
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
