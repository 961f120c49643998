"""Handler: CloudEvents from outside, which start runs or feed steps that wait for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid5

from starlette.responses import Response

from agentflow.control import shapes
from agentflow.control.bodies import media_type, read
from agentflow.control.call import Call, answer
from agentflow.core.message import Message
from agentflow.errors import Conflict, Invalid, Rejected, RetryLater
from agentflow.wire.catalogue import received
from agentflow.wire.event import MAX_EVENT_BYTES, Event
from agentflow.wire.http import BATCH, from_http
from agentflow.wire.json_format import MAX_BATCH_BYTES

AT_ONCE = 64


async def publish_events(call: Call) -> Response:
    """One event (binary or structured) or a batch: all are durable when this answers, or the request failed.

    What a failed request had accepted before the fault stays accepted: sending everything again is harmless,
    as the same source and id count once.
    """
    batch = media_type(call.request) == BATCH
    body = await read(call.request, MAX_BATCH_BYTES if batch else MAX_EVENT_BYTES)
    events = from_http(dict(call.request.headers), body)
    now = datetime.now(UTC)
    messages = [
        _message(call, event, now, f"[{index}]" if batch else "") for index, event in enumerate(events)
    ]
    gate = asyncio.Semaphore(AT_ONCE)

    async def submit(message: Message) -> None:
        async with gate:
            await call.services.engine.submit(message)

    outcomes = await asyncio.gather(*map(submit, messages), return_exceptions=True)
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, BaseException):
            raise _placed(outcome, f"[{index}]" if batch else "")
    accepted = [{"source": event.source, "id": event.id} for event in events]
    return answer(shapes.AcceptedEvents, {"accepted": accepted}, 202)


def _message(call: Call, event: Event, now: datetime, place: str) -> Message:
    try:
        wrapped = received(event, tenant=call.tenant, source_function="api", time=now)
    except Invalid as fault:
        problems = [replace(p, path=f"{place}.{p.path}" if place else p.path) for p in fault.problems]
        raise Invalid(problems, code=fault.code) from None
    assert isinstance(wrapped.data, dict)
    # Not a run of ours: an id that the same event always gets, so that it is recognised.
    same = uuid5(call.tenant, f"{event.source}\n{event.id}")
    trace = event.traceparent or call.trace
    return Message("event.received", call.tenant, same, "event", dict(wrapped.data), trace)


def _placed(fault: BaseException, place: str) -> BaseException:
    """The fault with the place in the batch of the event it befell."""
    if not place:
        return fault
    if isinstance(fault, RetryLater):
        return RetryLater(f"{place}: {fault}", after=fault.after, code=fault.code)
    if isinstance(fault, Conflict):
        return Conflict(f"{place}: {fault}", code=fault.code)
    if isinstance(fault, Invalid):
        return Invalid([replace(p, path=f"{place}.{p.path}") for p in fault.problems], code=fault.code)
    if isinstance(fault, Rejected):
        return Invalid([replace(fault.problem, path=f"{place}.{fault.problem.path}")], code=fault.code)
    return fault
