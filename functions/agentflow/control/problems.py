"""Every error the API answers with: application/problem+json (RFC 9457), one shape, nothing internal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from agentflow.errors import AgentFlowError, Conflict, Invalid, Problem, Rejected, RetryLater

MEDIA_TYPE = "application/problem+json"
CHALLENGE = 'Bearer realm="agentflow"'

# Where a code says more about the request than its class of error does.
STATUS_OF_CODE: Mapping[str, int] = {
    "bad_json": 400,
    "bad_query": 400,
    "bad_header": 400,
    "unauthorized": 401,
    "budget_exhausted": 402,
    "estimate_exceeds_budget": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "too_large": 413,
    "unsupported_media_type": 415,
    "unsupported_format": 415,
    "not_a_cloudevent": 415,
    "bad_charset": 415,
    "idempotency_mismatch": 422,
    "too_many_waits": 503,
}

# What to do about a conflict; other errors bring their mend along.
MEND_OF_CONFLICT: Mapping[str, str] = {
    "run_over": "start another run",
    "diverges": "ask the version that decided it, or fork at an earlier step",
    "idempotency_mismatch": "take a new Idempotency-Key for a new request",
}


def status_of(fault: AgentFlowError) -> int:
    """The HTTP status that tells a client what an error means for it."""
    code = getattr(fault, "code", "")
    if code in STATUS_OF_CODE:
        return STATUS_OF_CODE[code]
    if isinstance(fault, Rejected):
        return 422
    if isinstance(fault, Conflict):
        return 409
    return 503 if isinstance(fault, RetryLater) else 500


def response(fault: AgentFlowError, *, instance: str, trace_id: str) -> Response:
    """The answer to a request that raised ``fault``."""
    status, code = status_of(fault), str(getattr(fault, "code", "internal"))
    headers: dict[str, str] = {}
    if status == 401:
        headers["www-authenticate"] = CHALLENGE
    if isinstance(fault, Invalid):
        errors = list(fault.problems)
        detail = str(errors[0]) if len(errors) == 1 else f"{len(errors)} faults, the first: {errors[0]}"
        return write(
            status, code, detail, instance=instance, trace_id=trace_id, errors=errors, headers=headers
        )
    if isinstance(fault, Rejected):
        problem = fault.problem
        return write(
            status, problem.code, problem.message, instance=instance, trace_id=trace_id, mend=problem.mend,
            errors=[problem] if problem.path else [], headers=headers,
            more=fault.members,
        )  # fmt: skip
    mend = MEND_OF_CONFLICT.get(code, "")
    if isinstance(fault, RetryLater):
        headers["retry-after"] = str(max(1, round(fault.after)))
        mend = "send the request again, with the same Idempotency-Key if it has one"
    return write(status, code, str(fault), instance=instance, trace_id=trace_id, mend=mend, headers=headers)


def internal(*, instance: str, trace_id: str) -> Response:
    """The answer when something broke that must not: what broke is in the log, under the trace id."""
    mend = "report the trace id; the log says more under it"
    return write(500, "internal", "an error on our side", instance=instance, trace_id=trace_id, mend=mend)


def document(
    status: int, code: str, detail: str, *, mend: str = "", errors: Sequence[Problem] = ()
) -> dict[str, Any]:
    """What every problem document says."""
    return {
        "type": f"urn:agentflow:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "mend": mend,
        "errors": [{"path": e.path, "message": e.message, "mend": e.mend, "code": e.code} for e in errors],
    }


def write(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str,
    trace_id: str,
    mend: str = "",
    errors: list[Problem] | None = None,
    headers: Mapping[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """The problem document of a request as a response."""
    whole = document(status, code, detail, mend=mend, errors=errors or ())
    whole |= {"instance": instance, "trace_id": trace_id, **(more or {})}
    try:
        body = orjson.dumps(whole)
    except TypeError:  # a lone surrogate, quoted from the request
        body = json.dumps(whole).encode()
    return Response(body, status, dict(headers or {}), media_type=MEDIA_TYPE)
