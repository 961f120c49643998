"""Cursors of pages: opaque to clients, checked when they come back."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import TypeVar

import orjson

from agentflow.errors import Rejected

T = TypeVar("T")


def encode(*parts: str | int) -> str:
    """A cursor for the place these values name."""
    return urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def decode(cursor: str, make: Callable[..., T]) -> T:
    """``make`` called with the values in the cursor; ``Rejected`` when it is none of ours."""
    try:
        parts = orjson.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(parts, list):
            raise TypeError
        return make(*parts)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise Rejected(
            "is not a cursor of this list", code="bad_query", path="cursor",
            mend="use `next` of the page before, or leave it out",
        ) from None  # fmt: skip


def number(value: int) -> int:
    """A place that is a number, for ``decode``."""
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError
    return value
