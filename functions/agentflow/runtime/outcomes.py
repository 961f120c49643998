"""What becomes of an event that was posted to a function: the one table that both sides of a request read.

| answer | meaning for the event |
|---|---|
| 2xx | handled: what it led to is committed |
| 408, 425, 429, 502, 503, 504, no answer | the function can't now: again, after Retry-After |
| 400, 404, 405, 413, 415, 422 | the same event will be refused again: parked at once |
| 401, of a function | the bridge has another key: again, as often as it takes, and never parked (posts.py) |
| any other | may be the event's fault: tried again, parked after some deliveries |

A batch is answered with the status of the fault that passes soonest, and with a status and a reason for each event that
was not handled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from agentflow.errors import Conflict, Invalid, Rejected, RetryLater

LATER = frozenset({408, 425, 429, 502, 503, 504})
NEVER = frozenset({400, 404, 405, 413, 415, 422})


def status_of(fault: BaseException) -> int:
    """The status that tells a sender what a fault means for its event."""
    if isinstance(fault, RetryLater):
        return 503
    if isinstance(fault, Invalid):
        return 400
    return 422 if isinstance(fault, Rejected | Conflict) else 500


def fault_of(status: int, reason: str, after: str = "") -> Exception:
    """What a status means for an event; ``after`` is Retry-After, in seconds."""
    reason = reason[:1000].strip()
    if status in LATER:
        return RetryLater(reason, after=float(after) if after.isdigit() else 1.0)
    if status in NEVER:
        return Rejected(reason, code=f"http_{status}")
    return RuntimeError(f"{status}: {reason}")


def batch_answer(outcomes: Sequence[Any]) -> tuple[int, dict[str, Any]]:
    """Status and body for a batch of which each event has a fault as its outcome, or anything else."""
    failed = [
        {"index": place, "status": status_of(fault), "error": str(fault)}
        for place, fault in enumerate(outcomes)
        if isinstance(fault, BaseException)
    ]
    statuses = {each["status"] for each in failed}
    status = next((status for status in (503, 500, 422, 400) if status in statuses), 200)
    return status, {"handled": len(outcomes) - len(failed), "failed": failed}


def batch_outcomes(body: bytes, count: int) -> list[Exception | None] | None:
    """What a body says of each event of a batch that was not handled as a whole; None where it does not say."""
    try:
        told = orjson.loads(body)["failed"]
        failed = {int(each["index"]): fault_of(int(each["status"]), str(each["error"])) for each in told}
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    if not failed or not failed.keys() <= set(range(count)):
        return None
    return [failed.get(place) for place in range(count)]
