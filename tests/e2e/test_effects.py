"""Tools that declare effects: their key, a call made once, and what is said when nobody knows what became of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from house import House, all_decided_again, door, eventually

from agentflow.core.message import Message
from agentflow.runtime import claims, performer
from agentflow.store.pipeline import Pipeline

CHARGE = """
import json, os, time, urllib.request
def run(url, how):
    key = os.environ['AGENTFLOW_IDEMPOTENCY_KEY']
    body = json.dumps({'key': key}).encode()
    urllib.request.urlopen(urllib.request.Request(url, body), timeout=20).read()
    if how.startswith('sleep'):
        time.sleep(float(how[5:]))
    if how == 'die':
        os.kill(os.getpid(), 9)
    if how == 'raise':
        raise ValueError('no such card')
    if how == 'flood':
        print('x' * 2_000_000)
    return {'paid': 'nothing' if how == 'misfit' else 5, 'key': key}
"""


def document(how: str, *, retry: dict[str, Any] | None = None, **task: Any) -> dict[str, Any]:
    """Charges; where the outcome is not known a person finds out."""
    charge = {
        "kind": "tool", "use": "charge", "in": {"url": "url", "how": f"'{how}'"}, "timeout": "20s",
        "out": {"paid": "int", "key": "string"}, **({"retry": retry} if retry else {}), **task,
    }  # fmt: skip
    return {
        "agentflow": "plan/v1", "kind": "bt", "name": "charges", "limits": {"steps": 20, "usd": 1, "wall": "5m"},
        "input": {"url": "string", "order": "string"}, "vars": {"said": "string", "key": "string", "paid": "int"},
        "tools": {"charge": {"kind": "python", "code": CHARGE, "effects": "once", "usd": 0.01}},
        "tasks": {"charge": charge, "find_out": {"kind": "human", "use": "somebody", "out": {"paid": "int"}}},
        "root": {"fallback": [
            {"task": "charge", "set": {"key": "result.key", "paid": "result.paid"},
             "on_failure": {"said": "event.code"}},
            {"task": "find_out", "skip_if": "said != 'outcome_unknown'", "set": {"paid": "result.paid"}},
        ]},
    }  # fmt: skip


class FarSide:
    """Counts the calls of each key."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        self.calls[json.loads(await reader.readexactly(length))["key"]] += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[FarSide]:
    far = FarSide()
    server = await asyncio.start_server(far.serve, "127.0.0.1", 0)
    far.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        yield far


@pytest.fixture
async def far() -> AsyncIterator[FarSide]:
    async with listening() as far:
        yield far


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims hold for less long than in production, and still for longer than a loaded machine is busy elsewhere."""
    monkeypatch.setattr(claims, "LEASE_S", 4.0)
    monkeypatch.setattr(claims, "SAFE_S", 0.5)
    monkeypatch.setattr(performer, "LEASE_S", 4.0)
    monkeypatch.setattr(performer, "MINDED_AFTER_S", 0.3)


async def errors(house: House) -> list[tuple[str, int, str]]:
    rows = await house.rows("select task, attempt, error ->> 'code' as code from steps order by step, attempt")
    return [(row["task"], row["attempt"], row["code"]) for row in rows]


async def asked(house: House) -> bool:
    return bool(await house.rows("select 1 from subscriptions"))


async def answer(house: House, host: Any, run: Any) -> None:
    data = {"run": str(run), "step": 2, "output": {"paid": 7}, "by": "me"}
    await host.submit(Message("step.answered", house.tenant, run, f"answer:{uuid4()}", data))


async def settled(house: House, far: FarSide) -> None:
    """Nothing is left, everybody was called once at most, and all is decided the same again."""
    assert await house.rows("select * from claims") == []
    assert await house.rows("select * from outbox where consumer <> 'facts'") == []
    assert max(far.calls.values()) == 1
    await all_decided_again(house)


async def test_a_call_has_the_key_of_its_step_and_its_claim_goes_with_it(house: House, far: FarSide) -> None:
    await house.register(document("well"))
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        ended = await house.ended(run, within_s=40)
    assert (ended["status"], ended["output"]["paid"], ended["output"]["key"]) == ("succeeded", 5, f"{run}/1")
    assert far.calls == {f"{run}/1": 1}
    assert ended["spent_micro"] == 10_000
    await settled(house, far)


async def test_a_key_of_the_authors_is_the_same_for_every_attempt(house: House, far: FarSide) -> None:
    plan = document("raise", retry={"max": 3, "backoff": "10ms", "only": ["tool_error"]}, key="'order ' + order")
    plan["root"]["fallback"].append({"type": "succeed"})
    await house.register(plan)
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await house.ended(run, within_s=40)
    assert far.calls == {"order o1": 3}  # each has said that it failed, and its author wanted that
    assert await errors(house) == [("charge", attempt, "tool_error") for attempt in (1, 2, 3)]
    assert await house.rows("select * from claims") == []
    await all_decided_again(house)


async def test_a_key_without_a_value_fails_its_step_before_the_call(house: House, far: FarSide) -> None:
    plan = document("well", key="[order][1]")
    await house.register(plan)
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await house.ended(run, within_s=40)
    assert await errors(house) == [("charge", 1, "bad_key")]
    assert not far.calls
    await all_decided_again(house)


@pytest.mark.parametrize("how", ["sleep30", "die", "flood"])
async def test_a_call_that_was_ended_in_the_middle_has_an_unknown_outcome(
    house: House, far: FarSide, how: str
) -> None:
    """Its time is up, its process is killed, it is stopped for what it prints: no retry takes that for a failure."""
    broad = {"max": 5, "backoff": "10ms", "only": ["timeout", "sandbox_crashed", "output_too_large", "internal"]}
    await house.register(document(how, retry=broad, timeout="3s"))
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await eventually(lambda: asked(house), within_s=40)
        async with door(house, host) as api:
            (step,) = [each for each in (await api.get(f"/v1/runs/{run}/steps")).json()["items"] if each["step"] == 1]
            assert (step["status"], step["error"]["code"]) == ("failed", "outcome_unknown")
            assert "may have had its effect" in step["error"]["message"]
        await answer(house, host, run)
        ended = await house.ended(run, within_s=40)
    assert (ended["status"], ended["output"]["paid"]) == ("succeeded", 7)
    assert ended["spent_micro"] == 10_000  # it may have been charged for
    await settled(house, far)


@pytest.mark.parametrize(("how", "code"), [("raise", "tool_error"), ("misfit", "bad_result")])
async def test_what_a_tool_says_itself_is_known_and_not_tried_again_by_itself(
    house: House, far: FarSide, how: str, code: str
) -> None:
    await house.register(document(how, retry={"max": 5, "backoff": "10ms"}))
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        ended = await house.ended(run, within_s=40)
    assert ended["status"] == "failed"
    assert await errors(house) == [("charge", 1, code)]
    await settled(house, far)


async def test_an_author_may_name_the_unknown_outcome_and_the_key_stays(house: House, far: FarSide) -> None:
    await house.register(document("die", retry={"max": 2, "backoff": "10ms", "only": ["outcome_unknown"]}))
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await eventually(lambda: asked(house))
    assert far.calls == {f"{run}/1": 2}
    assert await errors(house) == [("charge", 1, "outcome_unknown"), ("charge", 2, "outcome_unknown")]


async def test_while_the_claimant_is_at_work_a_repetition_waits(house: House, far: FarSide) -> None:
    """Another host sends everything again when it starts; the call goes on for much longer than a claim holds."""
    await house.register(document("sleep9"))
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await eventually(lambda: called(far))
        async with house.host() as other:
            ended = await house.ended(run, within_s=40)
            assert other._relay is not None and other._relay.resent > 0
    assert (ended["status"], ended["output"]["paid"]) == ("succeeded", 5)
    await settled(house, far)


async def called(far: FarSide) -> bool:
    return bool(far.calls)


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_a_claimant_that_is_gone_leaves_an_unknown_outcome(house: House, far: FarSide, handoff: bool) -> None:
    """Its host stops in the middle of the call; the next one finds the claim, waits until it is over, and says so."""
    await house.register(document("sleep15"))
    async with house.host(handoff=handoff) as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await eventually(lambda: called(far))
        for flight in list(host._performers["run_tool"]._flights.values()):
            flight.cancel()
        await asyncio.sleep(0)
    assert len(await house.rows("select * from claims")) == 1
    async with house.host(handoff=handoff) as host:
        await eventually(lambda: asked(house), within_s=30)
        await answer(house, host, run)
        ended = await house.ended(run, within_s=40)
    assert (ended["status"], ended["output"]["said"]) == ("succeeded", "outcome_unknown")
    await settled(house, far)


async def test_a_call_that_has_not_begun_in_time_was_not_made_and_is_tried_again(house: House, far: FarSide) -> None:
    """There is room for one tool at a time, and another one takes it for longer than the call may take."""
    wait = {"kind": "tool", "use": "wait"}
    slow = {"kind": "python", "code": "import time\ndef run():\n    time.sleep(4)\n    return {}"}
    busy = document("well") | {"name": "busy", "tools": {"wait": slow}, "tasks": {"wait": wait}, "root": "wait"}
    await house.register(busy)
    await house.register(document("well", retry={"max": 9, "backoff": "10ms"}, timeout="2s"))
    async with house.host(sandbox_slots=1) as host:
        given = {"url": far.url, "order": "o1"}
        before = await house.submit(host, "busy", given)
        await asyncio.sleep(1.0)
        run = await house.submit(host, "charges", given)
        assert (await house.ended(run, within_s=40))["status"] == "succeeded"
        await house.ended(before)
    failed = await house.rows("select error ->> 'code' as code from steps where status = 'failed'")
    assert {row["code"] for row in failed} == {"timeout"}
    await settled(house, far)


@pytest.mark.parametrize("effects", [None, "none", "idempotent"])
async def test_calls_of_other_tools_cost_no_statement_more(
    house: House, far: FarSide, effects: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: set[str] = set()
    run_all = Pipeline.run

    async def noted(pipeline: Pipeline, calls: Any) -> Any:
        calls = list(calls)
        sent.update(name.decode().partition(".")[0] for name, _, _ in calls)
        return await run_all(pipeline, calls)

    monkeypatch.setattr(Pipeline, "run", noted)
    plan = document("sleep2")
    tool = plan["tools"]["charge"]
    tool |= {"effects": effects, "usd": 0}
    plan["tools"]["charge"] = {name: value for name, value in tool.items() if value is not None}
    await house.register(plan)
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        assert (await house.ended(run, within_s=40))["output"]["key"] == f"{run}/1"
    assert {"insert_steps", "postpone"} <= sent
    assert not {name for name in sent if "claim" in name}


async def test_a_halted_call_takes_its_claim_along(house: House, far: FarSide) -> None:
    """Where it costs nothing: else the claim says what becomes of the hold."""
    plan = document("sleep15")
    plan["tools"]["charge"]["usd"] = 0
    await house.register(plan)
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        await eventually(lambda: called(far))
        data = {"run": str(run), "reason": "enough"}
        await host.submit(Message("run.cancel_requested", house.tenant, run, "cancel", data))
        assert (await house.ended(run, within_s=40))["status"] == "cancelled"
        assert await house.rows("select * from claims") == []


async def test_what_agents_call_is_claimed_as_well(house: House, far: FarSide) -> None:
    script = (
        "rules:\n  - {role: user, prompt: charge, call: {charge: {url: '%s', how: sleep30}}}\n"
        "  - {role: tool, prompt: outcome_unknown, reply: nobody knows}\n"
    )
    (house.settings.script_dir / "agent.model.yaml").write_text(script % far.url)
    plan = document("well")
    plan["tools"]["charge"] |= {"in": {"url": "string", "how": "string"}, "timeout": "2s"}
    plan["agents"] = {"clerk": {"model": "small", "tools": ["charge"]}}
    retry = {"max": 4, "backoff": "1ms"}
    plan["tasks"] = {"serve": {"kind": "agent", "use": "clerk", "prompt": "charge", "retry": retry}}
    plan["root"] = {"task": "serve", "set": {"said": "result.text"}}
    await house.register(plan)
    async with house.host() as host:
        run = await house.submit(host, "charges", {"url": far.url, "order": "o1"})
        ended = await house.ended(run, within_s=40)
    assert (ended["status"], ended["output"]["said"]) == ("succeeded", "nobody knows")
    assert [row for row in await errors(house) if row[2]] == [("serve--charge", 1, "outcome_unknown")]
    assert far.calls == {f"{run}/3": 1}
    await settled(house, far)
