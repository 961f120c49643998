"""The audit chain: what makes an edit, a deletion, another order, a cut-off end or a rewrite of what happened visible.

Whenever a run is written, the rows it leaves behind in history, steps and ledger (they bear the ``rev`` of that write)
are folded into the run's chain: a keyed BLAKE2b of the chain so far and these rows. Half of the chain is shown in the
line of history that was written with it (``link``); all of it is only in the run's row, and is replaced by the next:
who cuts a run back to an earlier line does not find there what belongs into the run's row. Who does not have the key
can't fold anything.

When a run begins and when it has ended, its rev and link are noted; notes, and what operators do, are sealed into the
tenant's own chain, made in the same way: see audit.sql. What is not covered: what a step was given (it follows from the
results before it, and replaying the run says so) and the database's own times, which lie between two seals.

A chain is 36 bytes: which key (4), the shown and the secret half (32).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any
from uuid import UUID

import orjson

from agentflow.errors import Rejected

SHOWN = slice(4, 20)
MIN_KEY, MAX_KEY = 16, 64  # bytes; more than BLAKE2b takes would be cut off

Values = tuple[Any, ...]


class ChainKeys:
    """The keys of an installation: chains begin with the first, and go on with the one they began with.

    ``text``: keys separated by commas, each of 16 to 64 bytes. ``Rejected`` names the setting when it is malformed.
    """

    __slots__ = ("_first", "_keys")

    def __init__(self, text: str) -> None:
        keys = [key.strip().encode() for key in text.split(",")]
        if bad := [key for key in keys if not MIN_KEY <= len(key) <= MAX_KEY]:
            raise Rejected(
                f"a key has {len(bad[0])} bytes",
                code="bad_setting",
                path="AGENTFLOW_AUDIT_KEY",
                mend=f"use {MIN_KEY} to {MAX_KEY} bytes, e.g. the output of: openssl rand -hex 32",
            )
        self._keys = {blake2b(key, digest_size=4, person=b"which key").digest(): key for key in keys}
        self._first = next(iter(self._keys))

    def begin(self, content: bytes, key: bytes | None = None) -> bytes:
        """A new chain of whatever ``content`` says it is, made with the first key or the one that is named."""
        return self._made(key or self._first, content)

    def follow(self, chain: bytes, number: int, content: bytes) -> bytes:
        """The chain with one more link, which has this number."""
        return self._made(chain[:4], b"%b%d:%b" % (chain, number, content))

    def knows(self, chain: bytes) -> bool:
        """Whether the chain's key is among these."""
        return chain[:4] in self._keys

    def _made(self, name: bytes, content: bytes) -> bytes:
        key = self._keys.get(name)
        if key is None:
            raise Rejected(
                f"a chain was begun with key {name.hex()}, which is not among this installation's",
                code="unknown_audit_key",
                path="AGENTFLOW_AUDIT_KEY",
                mend="append the former key to the setting, behind a comma",
            )
        return name + blake2b(content, key=key, digest_size=32).digest()


# -- what is folded: values as they stand in the columns, JSON as its text, so that any change of a byte shows ---------


def run_content(
    tenant: UUID, run: UUID, born_ms: int, workflow: str, given: bytes | None, request_hash: str
) -> bytes:
    """Whose chain it is, and what was asked for."""
    return _content(("run", tenant, run, born_ms, workflow, given, request_hash))


def step_values(step: int, attempt: int, *rest: Any) -> Values:
    """A step; its epoch, task, kind, status, time of request in ms, hold, cost, output, error and usage follow."""
    return ("step", step, attempt, *rest)


def line_values(seq: int, name: str, data: bytes | None, decided: bytes) -> Values:
    """A line of history."""
    return ("line", seq, name, data, decided.hex())


def entry_values(step: int, attempt: int, entry: str, *rest: Any) -> Values:
    """An entry of the ledger; its amount, hold, price and usage follow."""
    return ("entry", step, attempt, entry, *rest)


def end_values(status: str, output: bytes | None, error: bytes | None) -> Values:
    """How a run has ended: a row that stands in the run's own."""
    return ("end", status, output, error)


def rows_content(rows: list[Values]) -> bytes:
    """What a run leaves behind with one write, in whatever order it comes."""
    rows.sort()  # by kind and key: what may be None is never compared
    return _content(rows)


def sealed_content(at_ms: int, kind: str, digest: bytes) -> bytes:
    """An entry of a tenant's chain; the digest is of its data, which may go before the entry does."""
    return _content((at_ms, kind, digest.hex()))


def tenant_content(tenant: UUID) -> bytes:
    """Whose chain it is."""
    return _content(("tenant", tenant))


def digest(data: bytes) -> bytes:
    """Of an entry's data, in 32 bytes."""
    return blake2b(data, digest_size=32).digest()


def _content(values: Any) -> bytes:
    return orjson.dumps(values, default=orjson.Fragment)  # bytes are JSON already
