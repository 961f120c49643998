"""The event stream of a run: its history as server-sent events, then one last event with the result."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any
from uuid import UUID

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agentflow.control import shapes
from agentflow.control.bodies import read, read_query
from agentflow.control.call import Call, no_run
from agentflow.control.waiting import while_connected
from agentflow.core import fork
from agentflow.core.run import TERMINAL
from agentflow.errors import Rejected

HEARTBEAT_S = 15.0
"""A silent stream says this often that it is alive, and looks anew, should a wake-up have been lost."""
PAGE = 200
RETRY_MS = 1000
END = "end"
"""Id of the last event of every stream."""
ENDED_AS = {"succeeded": "run.completed", "failed": "run.failed", "cancelled": "run.cancelled"}


async def stream_run(call: Call) -> Response:
    """Everything from the first line, or from the one after Last-Event-ID; ends with the run."""
    follow = read_query(call.request, shapes.FollowQuery).follow
    run = call.run_id()
    after = _position(call.request.headers.get("last-event-id"))
    if await call.services.store.run_status(call.tenant, run) is None:
        raise no_run()
    if after is None:
        return Response(status_code=204)  # tells an EventSource that there is no more to come
    await read(call.request, 0)
    call.services.waits.check()
    return EventStream(frames(call, run, after, follow=follow))


async def frames(call: Call, run: UUID, after: int, *, follow: bool) -> AsyncGenerator[bytes]:
    """The run's history from line ``after`` on as server-sent events; ends with the run, one last event."""
    store = call.services.store
    with call.services.waits.hold():
        async with call.services.engine.watch(run) as watch:
            yield f"retry: {RETRY_MS}\n\n".encode()
            while True:
                found, lines = await store.history(call.tenant, run, after, PAGE)
                if found is None:
                    raise no_run()
                for line in lines:
                    after = line["seq"]
                    # Some runs end by a line of that name; the last event says it for every run.
                    if line["name"] not in ENDED_AS.values():
                        yield _frame(str(after), line["name"], line)
                if len(lines) == PAGE:
                    continue
                if found["status"] in TERMINAL:
                    row = await store.run(call.tenant, run)
                    assert row is not None
                    body = shapes.Run.model_validate({**row, "id": run}).model_dump_json().encode()
                    yield _raw_frame(END, ENDED_AS[found["status"]], body)
                    return
                if not follow:
                    return
                if not await watch.changed(HEARTBEAT_S):
                    yield b": alive\n\n"


def _frame(id_: str, name: str, line: dict[str, Any]) -> bytes:
    data = line["data"]
    if name == fork.ENTRY:
        data = {key: value for key, value in data.items() if key != fork.BEGIN}  # for replaying, and may be large
    body = {"seq": line["seq"], "name": name, "at": line["at"], "data": data}
    return _raw_frame(id_, name, orjson.dumps(body, option=orjson.OPT_UTC_Z))


def _raw_frame(id_: str, name: str, body: bytes) -> bytes:
    # JSON as orjson and pydantic write it has no line breaks.
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (id_.encode(), name.encode(), body)


class EventStream(Response):
    """Server-sent events from a generator, which is closed as soon as the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send frame by frame."""

        async def pump() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._source) as frames_:
                async for frame in frames_:
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await while_connected(receive, pump())


def _position(last_event_id: str | None) -> int | None:
    """The history line to go on after; None: the client has seen the last event."""
    if not last_event_id:
        return 0
    if last_event_id == END:
        return None
    if last_event_id.isdigit() and last_event_id.isascii() and len(last_event_id) < 10:
        return int(last_event_id)
    mend = "send the id of an event of this stream, or none"
    raise Rejected("is not an id of this stream", code="bad_header", path="last-event-id", mend=mend)
