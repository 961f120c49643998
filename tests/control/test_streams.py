"""The event stream of a run, over a real HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from agentflow.core.message import Message
from agentflow.runtime.serve import http_server

from .world import FAILER, WAITER, World, problem

Frame = dict[str, Any]


@pytest_asyncio.fixture(loop_scope="module")
async def served(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Tenant A's client to the API on a real port."""
    async with http_server(world.app, "127.0.0.1", 0) as port:
        headers = {"authorization": f"Bearer {world.a.key}"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=10
        ) as client:
            yield client


def frames(text: str) -> list[Frame]:
    """The events of a finished stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append({"id": fields["id"], "event": fields["event"], "data": json.loads(fields["data"])})
    return found


async def next_frame(lines: AsyncIterator[str]) -> Frame:
    """The next event of a stream that goes on."""
    fields: dict[str, str] = {}
    async for line in lines:
        if not line and "data" in fields:
            return {"id": fields["id"], "event": fields["event"], "data": json.loads(fields["data"])}
        name, _, value = line.partition(": ")
        fields[name] = value
    raise AssertionError("the stream has ended")


async def test_the_whole_history_and_then_the_result(world: World, served: httpx.AsyncClient) -> None:
    await world.register()
    run = await world.start("echo", text="hello")
    answer = await served.get(f"/v1/runs/{run}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = frames(answer.text)
    assert [frame["event"] for frame in found] == [
        "run.planned",
        "run.started",
        "step.completed",
        "run.completed",
    ]
    assert [frame["id"] for frame in found] == ["1", "2", "3", "end"]
    assert found[1]["data"]["data"]["started"] == [{"step": 1, "task": "say", "kind": "tool"}]
    assert found[2]["data"]["data"]["status"] == "succeeded"
    assert found[2]["data"]["seq"] == 3
    assert found[3]["data"] == (await served.get(f"/v1/runs/{run}")).json()
    assert found[3]["data"]["output"] == {"said": "hello"}


async def test_what_happens_arrives_when_it_happens(world: World, served: httpx.AsyncClient) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    async with served.stream("GET", f"/v1/runs/{run}/events") as stream:
        lines = stream.aiter_lines()
        while (await next_frame(lines))["event"] != "run.started":
            pass
        assert world.app.state.services.waits.open == 1
        assert (await served.post(f"/v1/runs/{run}/signals/go")).status_code == 202
        async with asyncio.timeout(2):
            assert (await next_frame(lines))["event"] == "signal.received"
            last = await next_frame(lines)
        assert (last["event"], last["data"]["status"]) == ("run.completed", "succeeded")
    await until_nobody_waits(world)


async def until_nobody_waits(world: World) -> None:
    async with asyncio.timeout(2):
        while world.app.state.services.waits.open:  # noqa: ASYNC110  nothing tells when the server has noticed
            await asyncio.sleep(0.01)


async def test_a_client_that_leaves_frees_everything(world: World, served: httpx.AsyncClient) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    for _ in range(3):
        async with served.stream("GET", f"/v1/runs/{run}/events") as stream:
            await next_frame(stream.aiter_lines())
            assert world.app.state.services.waits.open == 1
        await until_nobody_waits(world)
    watchers = world.engine._host.watchers._by_run  # what a leak would be left in
    assert not any(str(key) == run for key in watchers)


async def test_the_same_goes_for_a_client_that_waits(world: World, served: httpx.AsyncClient) -> None:
    await world.register(WAITER)
    request = {"workflow": "waiter"}
    with pytest.raises(httpx.ReadTimeout):
        await served.post("/v1/runs", params={"wait": "30s"}, json=request, timeout=0.3)
    await until_nobody_waits(world)
    assert len((await served.get("/v1/runs")).json()["items"]) == 1


async def test_a_stream_goes_on_after_the_last_event_seen(world: World, served: httpx.AsyncClient) -> None:
    await world.register()
    run = await world.start("echo", text="hello")
    whole = frames((await served.get(f"/v1/runs/{run}/events")).text)
    for index, frame in enumerate(whole[:-1]):
        rest = await served.get(f"/v1/runs/{run}/events", headers={"last-event-id": frame["id"]})
        assert frames(rest.text) == whole[index + 1 :]
    over = await served.get(f"/v1/runs/{run}/events", headers={"last-event-id": "end"})
    assert (over.status_code, over.content) == (204, b"")


async def test_a_long_history_comes_in_pieces_and_whole(
    world: World, served: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow.control.streams.PAGE", 2)
    await world.register()
    run = await world.start("echo", text="hello")
    await world.finished(run)
    found = frames((await served.get(f"/v1/runs/{run}/events")).text)
    assert [frame["id"] for frame in found] == ["1", "2", "3", "end"]


async def test_without_following_it_ends_with_what_there_is(world: World, served: httpx.AsyncClient) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    answer = await served.get(f"/v1/runs/{run}/events", params={"follow": "false"})
    assert [frame["event"] for frame in frames(answer.text)] == ["run.planned", "run.started"]


async def test_a_run_that_failed_or_was_cancelled_ends_its_stream_once(
    world: World, served: httpx.AsyncClient
) -> None:
    await world.register(FAILER)
    run = await world.start("failer", why="x")
    events = [frame["event"] for frame in frames((await served.get(f"/v1/runs/{run}/events")).text)]
    assert events[-1] == "run.failed"
    assert events.count("run.failed") == 1
    await world.register(WAITER)
    run = await world.start("waiter")
    await served.post(f"/v1/runs/{run}/cancel")
    events = [frame["event"] for frame in frames((await served.get(f"/v1/runs/{run}/events")).text)]
    assert events[-2:] == ["run.cancel_requested", "run.cancelled"]


async def test_a_run_that_failed_before_it_began_ends_its_stream_once_too(
    world: World, served: httpx.AsyncClient
) -> None:
    run = uuid4()
    data = {"run": str(run), "workflow": "ghost", "version": None, "input": {}, "budget_micro": None}
    await world.engine.submit(Message("run.requested", world.a.id, run, "requested", data))
    found = frames((await served.get(f"/v1/runs/{run}/events")).text)
    assert [frame["event"] for frame in found] == ["run.failed"]
    assert found[0]["data"]["version"] is None
    assert found[0]["data"]["error"]["code"] == "unknown_workflow"


async def test_a_silent_stream_says_that_it_is_alive(
    world: World, served: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow.control.streams.HEARTBEAT_S", 0.05)
    await world.register(WAITER)
    run = await world.start("waiter")
    async with served.stream("GET", f"/v1/runs/{run}/events") as stream:
        async with asyncio.timeout(2):
            async for line in stream.aiter_lines():
                if line == ": alive":
                    break


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_position_that_is_none_is_refused(world: World, position: str) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    headers = {"last-event-id": position.encode()}
    answer = await world.a.http.get(f"/v1/runs/{run}/events", headers=headers)  # type: ignore[arg-type]
    assert problem(answer, 400, "bad_header")["errors"][0]["path"] == "last-event-id"


async def test_too_many_streams_are_refused_before_they_begin(world: World) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    world.app.state.services.waits.limit = 0
    problem(await world.a.http.get(f"/v1/runs/{run}/events"), 503, "too_many_waits")
