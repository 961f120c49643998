"""Reading requests: bounded in bytes and time, of a known media type, checked against a class."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from agentflow.errors import Invalid, Problem, Rejected
from agentflow.wire.catalogue import problems_of
from agentflow.wire.json_value import loads

JSON_TYPES = ("application/json",)
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
SMALL = 64 * 1024
LONG_S = 30.0
"""Longest a client may take to send its body."""
OFFLOAD = 256 * 1024
"""Larger bodies are parsed in a thread, so that other requests go on."""

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,200}")

Model = TypeVar("Model", bound=BaseModel)


def media_type(request: Request) -> str:
    """The request's media type without parameters, lower case; '' when it names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read(request: Request, limit: int) -> bytes:
    """The body, at most ``limit`` bytes; reading stops at the first byte too many or after 30 seconds."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Rejected(
            f"Content-Encoding {encoding[:40]!r} is not supported", code="unsupported_media_type",
            path="content-encoding", mend="send the body as it is",
        )  # fmt: skip
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(LONG_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise Rejected(
            f"the body took longer than {LONG_S:.0f} s", code="body_timeout", mend="send it faster"
        ) from None
    return b"".join(chunks)


async def read_json(
    request: Request, model: type[Model], limit: int = SMALL, *, optional: bool = False
) -> Model:
    """The JSON body as ``model``; with ``optional`` an empty body stands for ``{}``."""
    media = media_type(request)
    if media not in JSON_TYPES and not (optional and not media):
        raise unsupported(media, JSON_TYPES)
    body = await read(request, limit)
    if not body and optional:
        return validated(model, {})
    value = await asyncio.to_thread(loads, body) if len(body) > OFFLOAD else loads(body)
    return validated(model, value)


def read_query(request: Request, model: type[Model]) -> Model:
    """The query parameters as ``model``; unknown and repeated ones are refused."""
    items = request.query_params.multi_items()
    repeated = (
        {name for name, _ in items if sum(name == other for other, _ in items) > 1} if items[1:] else ()
    )
    if repeated:
        problems = [
            Problem(name[:100], "is given twice", "give it once", "bad_query") for name in sorted(repeated)
        ]
        raise Invalid(problems, code="bad_query")
    return validated(model, dict(items), code="bad_query", strict=False)


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key header, None when there is none."""
    key = request.headers.get("idempotency-key")
    if key is not None and _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise Rejected(
            "is not 1 to 200 visible ASCII characters", code="bad_header", path="idempotency-key",
            mend="use a UUID",
        )  # fmt: skip
    return key


def validated(model: type[Model], value: Any, *, code: str = "invalid", strict: bool | None = None) -> Model:
    """The value as ``model``; ``Invalid`` addresses every fault."""
    try:
        if not isinstance(value, Mapping):
            raise Invalid([Problem("", "must be a JSON object", 'send {"…": …}', code)], code=code)
        return model.model_validate(value, strict=strict)
    except ValidationError as fault:
        found = problems_of(fault, "")
        problems = [Problem(p.path.removeprefix("."), p.message, p.mend, code) for p in found]
        raise Invalid(problems, code=code) from None


def unsupported(media: str, accepted: tuple[str, ...]) -> Rejected:
    """The refusal of a body of another media type."""
    said = f"{media[:100]!r} is not supported" if media else "the body's media type is not given"
    return Rejected(
        said,
        code="unsupported_media_type",
        path="content-type",
        mend=f"send Content-Type: {' or '.join(accepted)}",
    )


def _too_large(limit: int) -> Rejected:
    unit = f"{limit // (1024 * 1024)} MiB" if limit >= 1024 * 1024 else f"{limit // 1024} KiB"
    return Rejected(f"the body is larger than {unit}", code="too_large", mend="send less, or split it")
