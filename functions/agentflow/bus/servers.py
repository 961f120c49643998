"""Which servers of NATS there are, and who we are to them: one setting, taken apart.

    nats://user:password@nats-0:4222,nats-1:4222    the second server is of the same kind, and the user its user, too
    tls://token@nats.internal                       a token instead of a user; port 4222

What is written in a URL counts for that URL alone where the client reads it: servers that it only hears of, from one
that knows them, would be asked in as nobody. So user and password are told apart from where the servers are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from agentflow.errors import Rejected

KINDS = (("nats", "tls"), ("ws", "wss"))  # the client takes no mixture of the two
MEND = "e.g. nats://user:password@nats.internal:4222; write what else has a meaning in URLs as %40 (@), %2C (,) …"


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers as the client takes them. ``user`` and ``password``, or a ``token``, or neither, are for all of them."""

    urls: tuple[str, ...]
    user: str | None = None
    password: str | None = None
    token: str | None = None

    def options(self) -> dict[str, Any]:
        """The arguments of ``nats.connect`` that say where to and as whom."""
        return {"servers": list(self.urls), "user": self.user, "password": self.password, "token": self.token}


def servers(setting: str) -> Servers:
    """The servers that ``AGENTFLOW_NATS_URL`` names, behind commas. ``Rejected`` when it is no such list; the error
    says nothing of passwords."""
    urls: list[str] = []
    users: list[str] = []
    scheme = "nats"
    for each in setting.split(","):
        named, separator, rest = each.strip().rpartition("://")
        scheme = named if separator else scheme
        user, _, address = rest.rpartition("@")
        _check(scheme, address)
        urls.append(f"{scheme}://{address}")
        users += [user] if user else []
    if not any({url.partition("://")[0] for url in urls} <= set(kind) for kind in KINDS):
        raise _rejected("names websockets beside others")
    if len(set(users)) > 1:
        raise _rejected("names several users or passwords, and all servers have to know the same one")
    user, colon, password = users[0].partition(":") if users else ("", "", "")
    if colon:
        return Servers(tuple(urls), unquote(user), unquote(password))
    return Servers(tuple(urls), token=unquote(user) or None)


def _check(scheme: str, address: str) -> None:
    if not any(scheme in kind for kind in KINDS):
        raise _rejected("is not a NATS URL")
    try:
        found = urlsplit(f"{scheme}://{address}")
        there = bool(found.hostname) and found.port != 0
    except ValueError:
        there = False
    if not there:
        raise _rejected("has a server without a name, or with a port that is no number")


def _rejected(message: str) -> Rejected:
    return Rejected(message, code="bad_setting", path="AGENTFLOW_NATS_URL", mend=MEND)
