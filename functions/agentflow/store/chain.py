"""The audit chain: what makes an edit, a deletion, another order, a cut-off end or a rewrite of what happened visible.

Every row that a run leaves in history, steps and ledger gets the run's next number and is folded into the run's
chain, a keyed BLAKE2b of the chain so far and the row. Half of the chain after a line of history is shown in the line
(``link``); all of it is only in the run's row, and is replaced by the next: who cuts a run back to an earlier line does
not find there what belongs into the run's row. Who does not have the key can't fold a single row.

When a run begins and when it has ended, its number and link are noted; notes, and what operators do, are sealed into
the tenant's own chain, made in the same way: see audit.sql. What is not covered: what a step was given (it follows from
the results before it, and replaying the run says so) and the database's own times, which lie between two seals.

A chain is 40 bytes: which key (4), how many rows (4), the secret half and the shown half (32).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID

import orjson

from agentflow.errors import Rejected

SHOWN = slice(8, 24)
MAX_KEY = 64  # bytes: what BLAKE2b takes
MIN_KEY = 16


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

    def begin(self, content: bytes) -> bytes:
        """A new chain of no rows; ``content`` is whose it is."""
        return self._made(self._first + bytes(4), content)

    def follow(self, chain: bytes, content: bytes) -> bytes:
        """The chain with one more row."""
        number = int.from_bytes(chain[4:8]) + 1
        return self._made(chain[:4] + number.to_bytes(4), chain[8:] + content)

    def begun_with(self, key: bytes, content: bytes) -> bytes:
        """A chain of no rows as it was begun with the key named ``key``."""
        return self._made(key + bytes(4), content)

    def knows(self, chain: bytes) -> bool:
        """Whether the chain's key is among these."""
        return chain[:4] in self._keys

    def _made(self, head: bytes, content: bytes) -> bytes:
        key = self._keys.get(head[:4])
        if key is None:
            raise Rejected(
                f"a chain was begun with key {head[:4].hex()}, which is not among this installation's",
                code="unknown_audit_key",
                path="AGENTFLOW_AUDIT_KEY",
                mend="append the former key to the setting, behind a comma",
            )
        return head + blake2b(head + content, key=key, digest_size=32).digest()


def number(chain: bytes) -> int:
    """How many rows have been folded."""
    return int.from_bytes(chain[4:8])


# -- what is folded: JSON as it stands in the column, so that any change of a byte shows -----------------------------


def run_content(
    tenant: UUID, run: UUID, born_ms: int, workflow: str, given: bytes | None, request_hash: str
) -> bytes:
    """Whose chain it is, and what was asked for."""
    return _content("run", tenant, run, born_ms, workflow, _json(given), request_hash)


def step_content(
    values: Sequence[Any], output: bytes | None, error: bytes | None, usage: bytes | None
) -> bytes:
    """A step: (step, attempt, epoch, task, kind, status, requested at in ms, held, cost) and what it came to."""
    return _content("step", *values, _json(output), _json(error), _json(usage))


def line_content(seq: int, name: str, data: bytes | None, decided: bytes) -> bytes:
    """A line of history."""
    return decided + _content("line", seq, name, _json(data))


def entry_content(values: Sequence[Any], usage: bytes | None) -> bytes:
    """An entry of the ledger: (step, attempt, entry, amount, held, price) and the usage it was priced by."""
    return _content("entry", *values, _json(usage))


def end_content(status: str, output: bytes | None, error: bytes | None) -> bytes:
    """How a run has ended: a row of its chain that stands in the run's own row."""
    return _content("end", status, _json(output), _json(error))


def sealed_content(at_ms: int, kind: str, digest: bytes) -> bytes:
    """An entry of a tenant's chain; the digest is of its data, which may go before the entry does."""
    return digest + _content("sealed", at_ms, kind)


def tenant_content(tenant: UUID) -> bytes:
    """Whose chain it is."""
    return _content("tenant", tenant)


def digest(data: bytes) -> bytes:
    """Of an entry's data, in 32 bytes."""
    return blake2b(data, digest_size=32).digest()


def _json(text: bytes | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def _content(*values: Any) -> bytes:
    return orjson.dumps(values)
