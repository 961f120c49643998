"""The stand-in keeps Knative's rules: what is proved behind it says nothing otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from agentflow.runtime.serve import http_server

from .queue_proxy import Backend, Revision


class Pod:
    """A server in this process that answers when it is told to, and remembers what it was asked and when it ended."""

    def __init__(self) -> None:
        self.url = ""
        self.answering = asyncio.Event()
        self.probed = asyncio.Event()
        self.seen: list[Request] = []
        self.ended_at_work: int | None = None
        self.backend: Backend | None = None
        self._running = AsyncExitStack()

    async def start(self) -> None:
        self.url = f"http://127.0.0.1:{await self._running.enter_async_context(http_server(self, '127.0.0.1', 0))}"

    async def ready(self) -> bool:
        return self.probed.is_set()

    async def end(self) -> None:
        self.ended_at_work = self.backend.at_work if self.backend else None
        await self._running.aclose()

    async def kill(self) -> None:
        self.answering.set()
        await self._running.aclose()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        self.seen.append(request)
        body = await request.body()
        await self.answering.wait()
        response: Response = PlainTextResponse(body, headers={"x-own": "1"})
        await response(scope, receive, send)


@asynccontextmanager
async def revision(**rules: Any) -> AsyncIterator[tuple[Revision, Pod, httpx.AsyncClient]]:
    """A revision of one pod, a client of it, and the pod, which starts when it is asked for."""
    pod = Pod()
    made = Revision(lambda: pod, **{"concurrency": 2, "timeout_s": 30} | rules)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(made), base_url="http://plan") as client:
        try:
            yield made, pod, client
        finally:
            await made.close()


async def _until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110  what is looked at tells nobody
            await asyncio.sleep(0.005)


async def test_a_request_for_nobody_starts_a_pod_and_waits_for_its_probe() -> None:
    async with revision() as (made, pod, client):
        asked = asyncio.create_task(client.post("/x?y=1", content=b"event", headers={"ce-id": "7"}))
        await _until(lambda: pod.url)
        assert (len(made.started), made.buffered, pod.seen) == (1, 1, [])
        pod.probed.set()
        pod.answering.set()
        answer = await asked
        assert (answer.status_code, answer.text, answer.headers["x-own"]) == (200, "event", "1")
        (seen,) = pod.seen
        assert (seen.method, seen.url.path, seen.url.query, seen.headers["host"]) == ("POST", "/x", "y=1", "plan")
        assert seen.headers["ce-id"] == "7" and seen.headers["x-forwarded-proto"] == "http"


async def test_a_pod_gets_as_many_at_once_as_it_takes_and_the_queue_is_bounded() -> None:
    async with revision(queue=3) as (made, pod, client):
        pod.probed.set()
        await made.scale(1)
        asked = [asyncio.create_task(client.post("/", content=b"")) for _ in range(5)]
        await _until(lambda: len(pod.seen) == 2 and len(made._waiting) == 3)
        refused = await client.post("/", content=b"")
        assert (refused.status_code, refused.text) == (503, "pending request queue full")
        pod.answering.set()
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
        assert (made.most, len(pod.seen)) == (2, 5)


async def test_who_waits_too_long_is_told_so_and_takes_no_place_from_others() -> None:
    async with revision(concurrency=1, timeout_s=1) as (made, pod, client):
        pod.probed.set()
        await made.scale(1)
        late = await asyncio.gather(client.post("/", content=b""), client.post("/", content=b""))
        assert [answer.status_code for answer in late] == [504, 504]
        pod.answering.set()
        assert (await client.post("/", content=b"")).status_code == 200
        assert made.backends[0].at_work == 0


async def test_a_pod_that_goes_answers_first_and_one_that_is_lost_answers_nobody() -> None:
    async with revision() as (made, pod, client):
        pod.probed.set()
        await made.scale(1)
        pod.backend = made.backends[0]
        asked = asyncio.create_task(client.post("/", content=b""))
        await _until(lambda: pod.seen)
        going = asyncio.create_task(made.scale(0))
        await asyncio.sleep(0.05)
        assert pod.ended_at_work is None and not made.backends
        pod.answering.set()
        await going
        assert (await asked).status_code == 200
        assert pod.ended_at_work == 0
    async with revision() as (made, pod, client):
        pod.probed.set()
        await made.scale(1)
        await pod.kill()
        assert (await client.post("/", content=b"")).status_code == 502
