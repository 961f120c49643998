"""A stand-in for what Knative puts before a revision: its activator and its queue-proxy, as one ASGI app.

| as Knative does it | here |
|---|---|
| a pod gets at most containerConcurrency requests at once (0: any number) | ``Revision._free`` |
| ten times as many wait for it in queue-proxy; one more is answered 503 | ``QUEUE`` |
| while there is no pod requests wait in the activator, and one is started | ``ACTIVATOR``, ``Revision._wake`` |
| a pod gets its first request when its readiness probe has succeeded | ``Revision.add`` |
| 504 after timeoutSeconds, 502 where a pod breaks the connection, or takes none | ``Revision.__call__`` |
| a pod that goes gets no more requests and its SIGTERM when it has answered all; SIGKILL after the grace | ``leave`` |

Left out: its metrics, its own probes, traffic that is split among revisions, TLS between the parts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

QUEUE = 10  # times containerConcurrency
ACTIVATOR = 10_000
PROBE_S = 0.1
HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


class Pod(Protocol):
    """A container that can be started and ended."""

    @property
    def url(self) -> str: ...

    async def start(self) -> None: ...

    async def ready(self) -> bool: ...

    async def end(self) -> None:
        """SIGTERM, and SIGKILL after the grace."""

    async def kill(self) -> None:
        """SIGKILL, now."""


class Backend:
    """A pod, and the requests it is at work on."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.taking = False
        self.at_work = 0
        self.idle = asyncio.Event()
        self.idle.set()
        # By the loop's clock: when it was asked for, its process ran, its probe succeeded, its first answer began.
        self.asked_at = asyncio.get_running_loop().time()
        self.running_at = self.ready_at = self.answered_at = 0.0


class Full(Exception):
    """As many wait as may."""


class Revision:
    """One function's pods, and the requests that are for them."""

    def __init__(
        self, make: Callable[[], Pod], *, concurrency: int, timeout_s: float, queue: int | None = None,
        activator: int = ACTIVATOR,
    ) -> None:  # fmt: skip
        self._make = make
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._queue = QUEUE * concurrency if queue is None else queue
        self._activator = activator
        self._waiting: deque[asyncio.Future[Backend]] = deque()
        self._waking: asyncio.Task[None] | None = None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)
        self.backends: list[Backend] = []
        self.answers: Counter[int] = Counter()
        self.most = 0  # requests that one pod was at work on at once
        self.buffered = 0  # requests that have come while there was no pod
        self.started: list[Backend] = []  # ever

    # -- scaling -------------------------------------------------------------------------------------------

    async def scale(self, count: int) -> None:
        """Have so many pods, ready; those that go, go in order."""
        gone = self.backends[count:]
        await asyncio.gather(*(self.add() for _ in range(count - len(self.backends))), *map(self.leave, gone))

    async def add(self) -> None:
        """One more pod; it takes requests once its probe has succeeded."""
        backend = Backend(self._make())
        self.backends.append(backend)
        self.started.append(backend)
        clock = asyncio.get_running_loop().time
        await backend.pod.start()
        backend.running_at = clock()
        while backend in self.backends and not await backend.pod.ready():  # noqa: ASYNC110  as probes do
            await asyncio.sleep(PROBE_S)
        backend.ready_at = clock()
        backend.taking = backend in self.backends  # it may have had to go before it was ready
        self._next()

    async def leave(self, backend: Backend) -> None:
        """As Knative scales down: no new request, SIGTERM when those at hand are answered."""
        self._remove(backend)
        await backend.idle.wait()
        await backend.pod.end()

    async def evict(self, backend: Backend) -> None:
        """As a node that goes down: SIGTERM in the midst of requests, and more come until all have heard of it."""
        ending = asyncio.ensure_future(backend.pod.end())
        await asyncio.sleep(PROBE_S)
        self._remove(backend)
        await ending

    async def lose(self, backend: Backend) -> int:
        """As a node that loses power: SIGKILL. How many requests it was at work on."""
        at_work = backend.at_work
        await backend.pod.kill()
        self._remove(backend)
        return at_work

    def _remove(self, backend: Backend) -> None:
        backend.taking = False
        if backend in self.backends:
            self.backends.remove(backend)

    def _wake(self) -> None:
        """What the autoscaler does when it hears from the activator of a request for nobody."""
        if not self.backends and (self._waking is None or self._waking.done()):
            self._waking = asyncio.create_task(self.add())

    async def close(self) -> None:
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.wait({self._waking})
        await asyncio.gather(*(backend.pod.kill() for backend in self.backends))
        await self._client.aclose()

    # -- requests ------------------------------------------------------------------------------------------

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._timeout_s):
                    content = await request.body()
                    backend = await self._place()
                    held.enter_context(self._working(backend))
                    answer = await self._forwarded(request, content, backend)
                    held.push_async_callback(answer.aclose)
                    backend.answered_at = backend.answered_at or asyncio.get_running_loop().time()
                    response: Response = StreamingResponse(_body(answer), answer.status_code)
                    kept = [(k, v) for k, v in answer.headers.raw if k.decode().lower() not in HOP_BY_HOP]
                    response.raw_headers = kept
            except ClientDisconnect:
                return
            except Full:
                response = PlainTextResponse("pending request queue full", 503)
            except TimeoutError:
                response = PlainTextResponse("request timeout", 504)
            except httpx.HTTPError as fault:
                response = PlainTextResponse(f"{type(fault).__name__}: {fault}", 502)
            self.answers[response.status_code] += 1
            await response(scope, receive, send)

    async def _forwarded(self, request: Request, content: bytes, backend: Backend) -> httpx.Response:
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP]
        client = request.client.host if request.client else "unknown"
        headers += [("x-forwarded-for", client), ("x-forwarded-proto", "http"), ("k-proxy-request", "activator")]
        url = backend.pod.url + request.url.path + (f"?{request.url.query}" if request.url.query else "")
        asked = self._client.build_request(request.method, url, headers=headers, content=content)
        return await self._client.send(asked, stream=True)

    @contextlib.contextmanager
    def _working(self, backend: Backend) -> Any:
        try:
            yield
        finally:
            backend.at_work -= 1
            if not backend.at_work:
                backend.idle.set()
            self._next()

    async def _place(self) -> Backend:
        """A pod with room, which the request is counted for; ``Full`` where too many wait for one."""
        found = self._free()
        if found is not None:
            return self._taken(found)
        pods = sum(backend.taking for backend in self.backends)
        if len(self._waiting) >= (pods * self._queue or self._activator):
            raise Full
        if not pods:
            self.buffered += 1
        self._wake()
        turn: asyncio.Future[Backend] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # its turn came as its time was over
                with self._working(turn.result()):
                    pass
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _next(self) -> None:
        while self._waiting and (found := self._free()) is not None:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._taken(found))
        if self._waiting:
            self._wake()

    def _free(self) -> Backend | None:
        free = [b for b in self.backends if b.taking and (not self._concurrency or b.at_work < self._concurrency)]
        return min(free, key=lambda backend: backend.at_work, default=None)

    def _taken(self, backend: Backend) -> Backend:
        backend.at_work += 1
        backend.idle.clear()
        self.most = max(self.most, backend.at_work)
        return backend


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    async for part in answer.aiter_raw():
        yield part


def by_host(apps: dict[str, Callable[..., Awaitable[None]]]) -> Any:
    """The ingress: who is asked for by the name in the request."""

    async def ingress(scope: Any, receive: Any, send: Any) -> None:
        host = Request(scope).headers.get("host", "").partition(":")[0]
        app = apps.get(host) or PlainTextResponse(f"nobody is {host}", 404)
        await app(scope, receive, send)

    return ingress
