"""Events posted to a function: together while it is busy, each with an outcome of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from agentflow.errors import Conflict, Invalid, Problem, Rejected, RetryLater
from agentflow.runtime import posts as module
from agentflow.runtime.outcomes import batch_answer, batch_outcomes, fault_of, status_of
from agentflow.runtime.posts import Posts
from agentflow.wire.event import Event
from agentflow.wire.http import from_http

WRONG = Invalid([Problem("data", "is wrong")])
FAULTS = [RetryLater("busy"), WRONG, Rejected("no run"), Conflict("twice"), KeyError("x")]


def event(number: int) -> Event:
    headers = {"ce-specversion": "1.0", "ce-id": f"e{number}", "ce-source": "/x", "ce-type": "com.example.x"}
    return from_http(headers, b"")[0]


class Function:
    """A function over HTTP that remembers what it got, and answers when it is let."""

    def __init__(self, decide: Callable[[Event], BaseException | None] = lambda _: None) -> None:
        self.decide = decide
        self.requests: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.refuses_batches: int | None = None
        self.busy = self.busiest = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        events = from_http(request.headers, request.content)
        self.requests.append([each.id for each in events])
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await self.open.wait()
        self.busy -= 1
        if "batch" not in request.headers.get("content-type", ""):
            fault = self.decide(events[0])
            return httpx.Response(200 if fault is None else status_of(fault), text=str(fault or ""))
        if self.refuses_batches:
            return httpx.Response(self.refuses_batches, json={"error": "not like this"})
        status, body = batch_answer([self.decide(each) for each in events])
        return httpx.Response(status, json=body)

    def posts(self, **more: Any) -> Posts:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Posts(client, "http://function/", **{"at_once": 1, **more})


async def outcomes(posts: Posts, count: int, *, size: int = 100) -> list[Any]:
    return await asyncio.gather(*(posts.post(event(n), size) for n in range(count)), return_exceptions=True)


async def test_the_first_leaves_at_once_and_what_comes_meanwhile_leaves_together() -> None:
    function = Function()
    assert await outcomes(function.posts(), 6) == [None] * 6
    assert function.requests == [["e0"], ["e1", "e2", "e3", "e4", "e5"]]


async def test_no_more_requests_are_out_than_may_be_and_no_batch_is_larger() -> None:
    function = Function()
    function.open.clear()
    posts = function.posts(at_once=2, most=3)
    waiting = asyncio.ensure_future(outcomes(posts, 10))
    await asyncio.sleep(0.05)
    assert function.requests == [["e0"], ["e1"]]
    function.open.set()
    assert await waiting == [None] * 10
    assert function.busiest == 2
    assert [len(each) for each in function.requests] == [1, 1, 3, 3, 2]


async def test_calls_are_dealt_out_one_by_one() -> None:
    function = Function()
    assert await outcomes(function.posts(at_once=3, most=1), 5) == [None] * 5
    assert [len(each) for each in function.requests] == [1] * 5


async def test_a_batch_has_no_more_bytes_than_a_function_takes() -> None:
    function = Function()
    assert await outcomes(function.posts(), 10, size=1_000_000) == [None] * 10
    assert max(map(len, function.requests)) == 4


async def test_each_event_of_a_batch_has_its_own_outcome() -> None:
    faults = dict(zip(("e2", "e3", "e4", "e5", "e6"), FAULTS, strict=True))
    function = Function(lambda each: faults.get(each.id))
    found = await outcomes(function.posts(), 8)
    assert function.requests == [["e0"], [f"e{n}" for n in range(1, 8)]]
    assert [type(each) for each in found] == [
        type(None), type(None), RetryLater, Rejected, Rejected, Rejected, RuntimeError, type(None),
    ]  # fmt: skip
    assert "data: is wrong" in str(found[3])


@pytest.mark.parametrize("status", [400, 413, 500, 501])
async def test_one_that_spoils_a_batch_spoils_no_other(status: int) -> None:
    function = Function(lambda each: Rejected("poison") if each.id == "e2" else None)
    function.refuses_batches = status
    found = await outcomes(function.posts(), 4)
    assert [type(each) for each in found] == [type(None), type(None), Rejected, type(None)]
    assert function.requests == [["e0"], ["e1", "e2", "e3"], ["e1"], ["e2"], ["e3"]]


async def test_a_function_that_is_not_able_to_now_gets_all_of_it_later() -> None:
    function = Function()
    function.refuses_batches = 503
    found = await outcomes(function.posts(), 3)
    assert [type(each) for each in found] == [type(None), RetryLater, RetryLater]
    assert len(function.requests) == 2


async def test_no_answer_is_a_reason_to_try_again() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    posts = Posts(httpx.AsyncClient(transport=httpx.MockTransport(refuse)), "http://function/", at_once=1)
    found = await outcomes(posts, 3)
    assert [type(each) for each in found] == [RetryLater] * 3
    assert "http://function/: refused" in str(found[0])


async def test_one_that_is_given_up_holds_up_no_other() -> None:
    function = Function()
    function.open.clear()
    posts = function.posts()
    waiting = [asyncio.ensure_future(posts.post(event(n), 100)) for n in range(4)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    waiting[2].cancel()
    function.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [
        asyncio.CancelledError, type(None), asyncio.CancelledError, type(None),
    ]  # fmt: skip
    assert function.requests == [["e0"], ["e1", "e3"]]


async def test_a_key_that_is_not_known_is_no_events_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """All wait, with growing pauses; one line says why, and no event is tried alone."""
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    keys: list[str | None] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers.get("authorization"))
        return httpx.Response(401, text="who are you")

    client = httpx.AsyncClient(transport=httpx.MockTransport(refuse))
    posts = Posts(client, "http://function/", at_once=1, key="k" * 32)
    pauses = []
    with capture_logs() as lines:
        for waited in (0.0, 0.0, 4.0, 55.0, 3600.0):
            now += waited
            found = await outcomes(posts, 3)
            assert [type(each) for each in found] == [RetryLater] * 3
            pauses.append(found[0].after)
    assert pauses == [0.5, 0.5, 4.0, 15.0, 15.0]
    assert keys == [f"Bearer {'k' * 32}"] * 10
    assert [(line["log_level"], line["reason"]) for line in lines] == [
        ("error", "http://function/ refuses the bridge's key")
    ] * 2
    assert "AGENTFLOW_PUSH_KEY" in lines[0]["mend"]
    (found,) = await outcomes(Posts(client, "http://function/", at_once=1, key=""), 1)
    assert str(found) == "http://function/ asks for a key, and the bridge has none"
    assert keys[-1] is None


async def test_a_sink_gets_no_key_and_its_401_is_as_any_other_answer() -> None:
    def sink(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        return httpx.Response(401)

    client = httpx.AsyncClient(transport=httpx.MockTransport(sink))
    (found,) = await outcomes(Posts(client, "http://sink/", at_once=1, most=1), 1)
    assert type(found) is RuntimeError


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_what_one_side_says_the_other_understands(fault: Exception) -> None:
    heard = fault_of(status_of(fault), str(fault))
    passes, refused = isinstance(fault, RetryLater), isinstance(fault, Rejected | Conflict)
    assert isinstance(heard, RetryLater) == passes
    assert isinstance(heard, Rejected) == refused


def test_a_batch_is_answered_with_the_fault_that_passes_soonest() -> None:
    assert batch_answer([None, None]) == (200, {"handled": 2, "failed": []})
    assert batch_answer([FAULTS[1], None])[0] == 400
    assert batch_answer([FAULTS[1], FAULTS[2]])[0] == 422
    assert batch_answer([FAULTS[4], FAULTS[2]])[0] == 500
    assert batch_answer([FAULTS[1], FAULTS[0], FAULTS[4]])[0] == 503


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'{"failed": []}', b'{"failed": [{"index": 2, "status": 400, "error": "x"}]}',
     b'{"failed": [{"index": 0, "status": "soon", "error": "x"}]}', b'{"failed": [{"index": 0}]}'],
)  # fmt: skip
def test_a_body_that_does_not_say_what_became_of_each_is_not_believed(body: bytes) -> None:
    assert batch_outcomes(body, 2) is None


def test_retry_after_is_heeded() -> None:
    later = fault_of(503, "busy", "7")
    assert isinstance(later, RetryLater)
    assert later.after == 7.0
    told = batch_outcomes(json.dumps({"failed": [{"index": 1, "status": 429, "error": "slow"}]}).encode(), 2)
    assert told is not None
    assert told[0] is None
    assert isinstance(told[1], RetryLater)
