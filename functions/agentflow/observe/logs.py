"""Structured logs: one JSON object per line, with the ids of what is being worked on, and nothing secret.

Whoever handles something binds its ids once (``with bound(tenant=…, run=…)``); every line written below it
carries them. Payloads have no business here: fields that usually hold one are withheld, whoever logs them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, TextIO

import orjson
import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars

# Not "event": that is what structlog calls the message itself.
IDS = ("tenant", "run", "step", "attempt", "event_id", "trace_id")
WITHHELD = frozenset(
    {
        "authorization",
        "api_key",
        "body",
        "content",
        "data",
        "headers",
        "input",
        "key",
        "messages",
        "output",
        "password",
        "payload",
        "pepper",
        "prompt",
        "secret",
        "state",
        "token",
        "vars",
    }
)
MAX_TEXT = 2000
MAX_FAULT = 500
MAX_FRAMES = 20

_SECRET = re.compile(r"\baf_[0-9a-f]{32}_[a-z0-9]+_[A-Za-z0-9_-]+|\bBearer +[^\s\"']+|\bsk-[A-Za-z0-9_-]{8,}")
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/\s:@]*):[^@/\s]+@")

Event = MutableMapping[str, Any]


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Write lines of ``level`` (debug, info, warning, error) and above to ``stream`` (default stderr).

    Lines of libraries that use ``logging`` (uvicorn, nats, psycopg) come out in the same form. Raises
    ``ValueError`` for an unknown level.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ValueError(f"unknown log level {level!r}: use debug, info, warning or error")
    target = stream or sys.stderr
    shared: list[Any] = [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _fault,
        _scrub,
        structlog.processors.EventRenamer("message"),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_dumps)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,  # a later configure() must reach loggers that exist already
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_dumps),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries are verbose below warning, and their access lines repeat ours.
    root.setLevel(max(threshold, logging.WARNING))


def logger(function: str) -> Any:
    """A logger whose lines say which ``function`` (or part of the program) wrote them."""
    return structlog.get_logger(function=function)


@contextmanager
def bound(**ids: object) -> Iterator[None]:
    """Put ids (tenant, run, step, event_id …) on every line written inside; None leaves one out."""
    unknown = ids.keys() - set(IDS)
    if unknown:
        raise ValueError(f"not an id that logs carry: {', '.join(sorted(unknown))}")
    with bound_contextvars(**{name: str(value) for name, value in ids.items() if value is not None}):
        yield


def masked(text: str, limit: int = MAX_TEXT) -> str:
    """The text without API keys, bearer tokens and passwords in URLs, cut to ``limit`` characters."""
    text = text if len(text) <= limit else text[:limit] + "…"
    return _URL_PASSWORD.sub(r"\1:***@", _SECRET.sub("***", text))


def _fault(_logger: Any, _method: str, event: Event) -> Event:
    """An exception as its type, the first line of its message and where it came from.

    Later lines of a database error quote the row, so they stay out.
    """
    fault = event.pop("exc_info", None)
    if not fault:
        return event
    if fault is True:
        fault = sys.exc_info()[1]
    elif isinstance(fault, tuple):
        fault = fault[1]
    if not isinstance(fault, BaseException):
        return event
    where = []
    trace = fault.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        where.append(f"{code.co_filename.rpartition('/site-packages/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    lines = str(fault).splitlines()
    event["fault"] = {
        "type": type(fault).__name__,
        "message": masked(lines[0] if lines else "", MAX_FAULT),
        "where": where[-MAX_FRAMES:],
    }
    return event


def _scrub(_logger: Any, _method: str, event: Event) -> Event:
    for name, value in event.items():
        event[name] = "[withheld]" if name in WITHHELD else _clean(value, 4)
    return event


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, int | float | bool) or value is None:
        return value
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {
            str(name): "[withheld]" if name in WITHHELD else _clean(item, depth - 1)
            for name, item in list(value.items())[:50]
        }
    if isinstance(value, list | tuple):
        return [_clean(item, depth - 1) for item in value[:50]]
    return masked(str(value))


def _dumps(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=str).decode()
