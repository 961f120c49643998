"""Time in a state machine: what is set survives its host, fires once and not early, and goes with its state."""

from __future__ import annotations

from datetime import timedelta

from house import House, eventually

from agentflow.core.message import Message

TIMED = {
    "agentflow": "plan/v1", "kind": "fsm", "name": "timed", "limits": {"steps": 10}, "vars": {"n": "int"},
    "tasks": {"ages": {"kind": "wait", "for": "1h"}},
    "initial": "work",
    "states": {
        "work": {"run": "ages", "visits": 2, "entry": {"set": {"n": "n + 1"}}, "transitions": [
            {"after": "300ms", "if": "n < 2", "to": "work"},
            {"after": "400ms", "to": "listen"},
            {"event": "done", "to": "bad"},
        ]},
        "listen": {"transitions": [{"event": "go", "set": {"n": "int(event.data.n)"}, "to": "ok"}]},
        "ok": {"final": "success"},
        "bad": {"final": "failure"},
    },
}  # fmt: skip


async def test_a_state_is_left_when_its_time_is_over_and_waits_for_a_signal(house: House) -> None:
    await house.register(TIMED)
    async with house.host() as host:
        run = await house.submit(host, "timed")
        await eventually(lambda: house.rows("select 1 from history where name = 'timer.fired'"))
    # The host is gone while the next timer runs, and another one takes over.
    async with house.host() as host:
        await eventually(lambda: _at(house, "listen"))
        assert await house.rows("select key from timers") == [{"key": "wall"}]
        data = {"run": str(run), "name": "go", "data": {"n": 7}, "step": None}
        await host.submit(Message("signal.received", house.tenant, run, "signal:go", data))
        row = await house.ended(run)
    assert (row["status"], row["output"]) == ("succeeded", {"n": 7})
    fired = await house.rows(
        "select at from history where name in ('run.started', 'timer.fired') order by seq"
    )
    begun, first, passed, second = [line["at"] for line in fired]  # the third finds its guard false
    for since, until, least in ((begun, first, 300), (first, passed, 300), (first, second, 400)):
        assert until - since >= timedelta(milliseconds=least)
    assert await house.rows("select * from timers") == []


async def _at(house: House, state: str) -> bool:
    rows = await house.rows("select state -> 'cursor' -> 'at' as at from runs")
    return bool(rows) and rows[0]["at"] == [state]


TREE = {
    "agentflow": "plan/v1", "kind": "bt", "name": "hurried", "limits": {"steps": 20}, "vars": {"n": "int"},
    "tasks": {
        "ages": {"kind": "wait", "for": "1h"},
        "add": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}},
    },
    "root": {"sequence": [
        {"fallback": [{"timeout": "300ms", "child": "ages"}, {"task": "add", "set": {"n": "result.n"}}]},
        {"delay": "300ms", "child": {"timeout": "1h", "child": {"task": "add", "set": {"n": "result.n"}}}},
    ]},
}  # fmt: skip


async def test_a_tree_gives_up_what_takes_too_long_and_waits_before_what_is_later(house: House) -> None:
    await house.register(TREE)
    async with house.host() as host:
        run = await house.submit(host, "hurried")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'after'"))
    async with house.host():
        row = await house.ended(run)
    assert (row["status"], row["output"]) == ("succeeded", {"n": 2})
    lines = await house.rows("select name, at from history order by seq")
    assert [line["name"] for line in lines] == [
        "run.planned", "run.started", "timer.fired", "step.completed", "timer.fired", "step.completed",
    ]  # fmt: skip
    for since, until in ((1, 2), (3, 4)):
        assert lines[until]["at"] - lines[since]["at"] >= timedelta(milliseconds=300)
    assert [step["status"] for step in await house.rows("select status from steps order by step")] == [
        "halted", "succeeded", "succeeded",
    ]  # fmt: skip
    assert await house.rows("select * from timers") == []
