"""Serving: HTTP servers with probes and an orderly end, for the API and for functions by push."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import structlog

from agentflow.config import Settings
from agentflow.errors import RetryLater
from agentflow.runtime.bearer import METRICS_KEY, Lock, bearer_keys, bears, unauthorized
from agentflow.runtime.function import DOORS, source
from agentflow.runtime.outcomes import batch_answer, status_of

if TYPE_CHECKING:
    from agentflow.runtime.host import Host

log = structlog.get_logger(__name__)
Asgi = Callable[
    [dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]
STARTING = "starting"
DEAD_LETTERS = "/dead-letters"
"""Where a function takes what a Broker could not deliver to it: it is parked, like what the bridge gives up on."""
FORWARDED = frozenset({b"x-forwarded-for", b"forwarded"})
"""What ingresses, gateways and queue-proxy put into the requests they pass on, and Prometheus at a pod does not."""
STOP_S = 5  # how long a start that is called off may take to notice
PAUSE_S = 5.0  # most between two tries to start
REMIND_S = 60.0
GRACE_S = 25  # queue-proxy gives 30 s to drain
KEEP_S = 120  # longer than those before us keep an idle connection (queue-proxy: 90 s), or they send into a closed one


@asynccontextmanager
async def http_server(app: Any, host: str, port: int, *, shared: bool = False) -> AsyncIterator[int]:
    """Serve an ASGI app on an address; gives the port (a free one for 0). Drains on the way out.

    ``shared``: others listen there, too, and each connection comes to one of them.
    """
    import uvicorn

    listener = socket.create_server((host, port), reuse_port=shared, backlog=2048)
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", access_log=False, timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_S, ws="none",
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        stack.callback(listener.close)
        task = asyncio.create_task(server._serve([listener]), name="http")
        try:
            while not server.started and not task.done():  # noqa: ASYNC110  uvicorn offers no event
                await asyncio.sleep(0.005)
            if task.done():
                task.result()
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait({task})


def with_probes(app: Any, host: Carried, settings: Settings) -> Asgi:
    """An ASGI app with the probes of a container in front: /healthz, /readyz (and OpenFaaS's names), /metrics."""
    from agentflow.observe import metrics

    keys = bearer_keys(settings.metrics_key, METRICS_KEY)

    async def probed(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "") if scope["type"] == "http" else ""
        if path in ("/healthz", "/_/health"):
            await _answer(send, 200, b'{"status":"alive"}')
        elif path in ("/readyz", "/_/ready"):
            ready, reason = host.ready()
            said = {"status": "ready"} if ready else {"status": "not ready", "reason": reason}
            await _answer(send, 200 if ready else 503, orjson.dumps(said))
        elif path == "/metrics":
            headers = dict(scope["headers"])
            if bears(headers, keys) if keys else FORWARDED.isdisjoint(headers):
                await metrics.endpoint(scope, receive, send)
            else:
                what = f"what this host has as {METRICS_KEY}" if keys else f"a key, once {METRICS_KEY} is set here"
                await unauthorized(send, METRICS_KEY, f"ask the host itself, or send Authorization: Bearer with {what}")
        elif path and host.ready()[1].startswith(STARTING):
            await _answer(send, 503, b'{"status":"starting"}')
        else:
            await app(scope, receive, send)

    return probed


async def not_found(scope: Any, receive: Any, send: Any) -> None:
    """What a host without an API says to everything but its probes."""
    if scope["type"] == "http":
        await _answer(send, 404, b'{"error":"this host has no API"}')


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def push_app(name: str, host: Host, settings: Settings) -> Asgi:
    """A function's push door: functions-framework's async app around its main.py, with lock, batches and tracing added.

    functions-framework hands over no request and refuses batches: the HTTP ``traceparent`` is put among the
    event's attributes before, and each event of a batch is handled like one that came alone. The API has keys of its
    own. ``Rejected`` where the door would stand open by mistake.
    """
    lock = Lock(name, settings) if name != "api" else None
    kept = os.environ.get("FUNCTION_TARGET")  # noqa: TID251  create_app writes it for its own use
    from functions_framework.aio import create_asgi_app

    kind = "http" if name == "api" else "cloudevent"
    app: Asgi = create_asgi_app(name, str(source(name)), kind)  # type: ignore[no-untyped-call]
    if kept is None:
        os.environ.pop("FUNCTION_TARGET", None)  # noqa: TID251
    if lock is not None:
        return _with_batches(app, name, host, lock)
    DOORS["api"] = _api_door(host)
    return app


def _api_door(host: Host) -> Callable[[Any], Awaitable[Any]]:
    """functions-framework wants a response from a function: this one is the API's answer, streamed as it comes."""
    from starlette.requests import Request
    from starlette.responses import Response

    api = host.api()

    class Answer(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await api(scope, receive, send)

    async def door(request: Request) -> Answer:
        return Answer()

    return door


def _with_batches(app: Any, name: str, host: Host, lock: Lock) -> Asgi:
    from starlette.requests import Request
    from starlette.responses import JSONResponse

    from agentflow.errors import Invalid
    from agentflow.wire.http import from_http

    async def door(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        caller = lock.caller(headers)
        if caller == "stranger":
            await lock.refuse(send)
            return
        if b"traceparent" in headers and b"ce-traceparent" not in headers and b"ce-id" in headers:
            scope = {**scope, "headers": [*scope["headers"], (b"ce-traceparent", headers[b"traceparent"])]}
        dead = scope["path"] == DEAD_LETTERS
        batch = headers.get(b"content-type", b"").startswith(b"application/cloudevents-batch")
        if not (dead or batch or caller == "outsider"):
            await app(scope, receive, send)
            return
        request = Request(scope, receive)
        handle = host.receive_dead_letter if dead else host.receive_event
        try:
            events = from_http(request.headers, await request.body())
        except Invalid as fault:
            await JSONResponse({"error": str(fault)}, status_of(fault))(scope, receive, send)
            return
        if caller == "outsider" and any(event.ours for event in events):
            await lock.refuse(send)  # not 400: it may be the bridge, which has lost its key
            return
        outcomes = await asyncio.gather(*(handle(name, e) for e in events), return_exceptions=True)
        status, body = batch_answer(outcomes)
        await JSONResponse(body, status)(scope, receive, send)

    return door


class Carried(Protocol):
    """Something a process carries: started once what it needs has appeared, drained, stopped."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def troubled(self, reason: str) -> None: ...

    def draining(self) -> None: ...

    def ready(self) -> tuple[bool, str]: ...


async def until_signalled(carried: Carried, app: Any, settings: Settings, *, shared: bool = False) -> None:
    """Serve ``app`` and carry ``carried`` until SIGTERM or SIGINT, waiting for Postgres and NATS to appear.

    On a ``shared`` port nobody keeps connections from who is not ready: there it listens once it is.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    loop.set_exception_handler(_unheard)
    address = (settings.http_host, settings.http_port)
    async with contextlib.AsyncExitStack() as listening:
        if not shared:
            port = await listening.enter_async_context(http_server(app, *address))
            log.info("listening", port=port)
        starting = asyncio.ensure_future(_started(carried, stop))
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            if shared:
                port = await listening.enter_async_context(http_server(app, *address, shared=True))
            log.info("ready", port=port)
            await stopping
        starting.cancel()
        # A client in the middle of connecting may take the cancellation for one of its own time-outs.
        await asyncio.wait({starting}, timeout=STOP_S)
        carried.draining()
    await carried.stop()


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """uvloop complains of names that could not be found for somebody who has given up: that one says it himself."""
    if not isinstance(context.get("exception"), socket.gaierror):
        loop.default_exception_handler(context)


async def _started(carried: Carried, stop: asyncio.Event) -> None:
    """Start, as often as it takes. What is in the way is logged when it changes, and every minute."""
    pause, said, quiet_s = 0.2, "", 0.0
    while not stop.is_set():
        try:
            await carried.start()
            return
        except RetryLater as fault:
            reason = str(fault)
            carried.troubled(reason)
            if reason != said or quiet_s >= REMIND_S:
                log.warning("not ready yet", reason=reason)
                said, quiet_s = reason, 0.0
            wait = pause * random.uniform(0.8, 1.2)  # a hundred hosts wait for the same server
            await asyncio.sleep(wait)
            quiet_s += wait
            pause = min(pause * 2, PAUSE_S)


async def serve(
    settings: Settings, names: Sequence[str], *, push: bool, relay: bool = False, shared: bool = False
) -> None:
    """Carry functions until SIGTERM: by pull, or one function by push; ``shared``: on a port with others."""
    from agentflow.runtime.host import Host

    host = Host(
        settings,
        names,
        engine_dsn=settings.dsn("agentflow_engine"),
        api_dsn=settings.dsn("agentflow_api") if "api" in names else None,
        relay_dsn=settings.dsn("agentflow_relay") if relay else None,
        keeper_dsn=settings.dsn("agentflow_keeper") if relay else None,
        nats_url=settings.bus(),
        pull=not push,
    )
    app = with_probes(push_app(names[0], host, settings), host, settings) if push else host.http()
    await until_signalled(host, app, settings, shared=shared)
