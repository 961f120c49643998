"""Budgets on the real stack: who is refused, who waits and is woken, who is asked, and what is told of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from house import ALL, House, all_decided_again, door, eventually

from agentflow.control import shapes
from agentflow.core.decide import settlement
from agentflow.store.budgets import remove_budget, set_budget

# An llm call of the scripted model: 0.25 and 2 dollars per million tokens, some 30 tokens of input and 100 of output.
ASKING = {
    "agentflow": "plan/v1", "kind": "bt", "name": "asking", "limits": {"steps": 5, "usd": 0.01, "at_limit": "wait"},
    "tasks": {"ask": {"kind": "llm", "use": "small", "prompt": "hello", "max_tokens": 100, "min_tokens": 100}},
    "root": {"sequence": ["ask"]},
}  # fmt: skip
HOLD = 210
RULES = "rules:\n  - {prompt: hello, reply: ho, latency_ms: %d}\n"


@pytest.fixture
async def house(house: House) -> AsyncIterator[House]:
    """After each test all runs are decided again, and come to the same."""
    script(house)
    yield house
    await all_decided_again(house)


def script(house: House, latency_ms: int = 0) -> None:
    (Path(house.settings.script_dir) / "budgets.model.yaml").write_text(RULES % latency_ms)


async def limit(house: House, micro: int | None, scope: str = "tenant", period: str = "total", **more: Any) -> None:
    await set_budget(house.database.admin, house.tenant, scope, period, limit_micro=micro, **more)


async def waiting(house: House, run: UUID, for_: str = "budget") -> Any:
    async def look() -> Any:
        (row,) = await house.rows("select state -> 'open' as open from runs where run_id = %s", run)
        return [step for step, opened in (row["open"] or {}).items() if opened[3] == for_]

    return await eventually(look)


async def published(house: House, name: str) -> list[dict[str, Any]]:
    return await house.rows("select data from outbox where name = %s and consumer = 'facts'", name)


async def test_a_step_waits_until_its_limit_is_raised(house: House) -> None:
    await house.register(ASKING)
    await limit(house, 100)
    async with house.host() as host:
        run = await house.submit(host, "asking")
        await waiting(house, run)
        await limit(house, 1000)
        raised = time.monotonic()
        row = await house.ended(run)
        assert time.monotonic() - raised < 5  # the relay looks by itself after thirty seconds only
    assert row["status"] == "succeeded"
    assert await house.rows("select * from timers") == []
    (account,) = await house.rows("select spent_micro, held_micro, short_micro from budgets")
    assert account == {"spent_micro": row["spent_micro"], "held_micro": 0, "short_micro": None}


async def test_steps_wait_for_what_others_give_back_in_their_order(house: House) -> None:
    await house.register(ASKING)
    script(house, 800)
    await limit(house, HOLD + 30)  # one at a time: a call costs a few micro-dollars
    async with house.host() as host:
        runs = [await house.submit(host, "asking")]
        await waiting(house, runs[0], "call")
        for _ in range(3):
            runs.append(await house.submit(host, "asking"))
            await waiting(house, runs[-1])
        rows = [await house.ended(run) for run in runs]
    assert [row["status"] for row in rows] == ["succeeded"] * 4
    assert sorted(rows, key=lambda row: row["finished_at"]) == rows
    holds = await house.rows("select run_id from ledger where entry = 'hold' order by at")
    assert [row["run_id"] for row in holds] == runs


async def test_hundreds_of_steps_wait_for_their_own_runs_limit_and_each_is_woken_once(
    house: House, capfd: pytest.CaptureFixture[str]
) -> None:
    fan = ASKING | {
        "name": "fan", "limits": {"steps": 300, "usd": 0.0045, "at_limit": "wait"}, "input": {"items": "list(int)"},
        "root": {"map": {"task": "ask"}, "over": "items", "max": 300},
    }  # fmt: skip
    await house.register(fan)
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "fan", {"items": list(range(300))}))
    assert (row["status"], row["held_micro"]) == ("succeeded", 0)
    assert row["spent_micro"] <= 4_500
    woken = await house.rows("select data from history where name = 'timer.fired' and data ->> 'kind' = 'budget'")
    assert sorted(line["data"]["step"] for line in woken) == list(range(4_500 // HOLD + 1, 301))
    assert "batch failed" not in capfd.readouterr().err


async def test_a_step_waits_until_its_period_ends(house: House) -> None:
    await house.register(ASKING)
    await limit(house, HOLD, period="day")
    async with house.host() as host:
        await house.ended(await house.submit(host, "asking"))
        run = await house.submit(host, "asking")
        await waiting(house, run)
        between = "select extract(epoch from fire_at - ends_at) as s from timers, budgets where kind = 'budget'"
        (gap,) = await house.rows(between)
        assert abs(gap["s"]) < 1
        async with await psycopg.AsyncConnection.connect(house.database.admin) as conn:  # it is tomorrow
            await conn.execute("set session_replication_role = replica")
            await conn.execute("update agentflow.budgets set ends_at = clock_timestamp()")
            await conn.execute("update agentflow.timers set fire_at = clock_timestamp() where kind = 'budget'")
            await conn.execute("notify agentflow_relay")
        row = await house.ended(run)
    assert row["status"] == "succeeded"
    (account,) = await house.rows("select spent_micro, held_micro from budgets")
    assert account == {"spent_micro": row["spent_micro"], "held_micro": 0}


async def test_a_budget_is_restored_when_its_period_ends_though_nobody_is_charged(house: House) -> None:
    await house.register({**ASKING, "name": "strict", "limits": {"steps": 5, "usd": 0.01}})
    await limit(house, HOLD, period="day")
    async with house.host() as host:
        await house.ended(await house.submit(host, "strict"))
        assert (await house.ended(await house.submit(host, "strict")))["status"] == "failed"
        async with await psycopg.AsyncConnection.connect(house.database.admin) as conn:  # it is tomorrow
            await conn.execute("set session_replication_role = replica")
            await conn.execute("update agentflow.budgets set ends_at = clock_timestamp()")
            await conn.execute("update agentflow.timers set fire_at = clock_timestamp() where kind = 'period'")
            await conn.execute("notify agentflow_relay")
        account = "select spent_micro, ends_at > clock_timestamp() as anew from budgets where short_micro is null"
        found = await eventually(lambda: house.rows(account), within_s=5)
        await eventually(lambda: _nothing_left(house), within_s=5)
    assert found == [{"spent_micro": 0, "anew": True}]


async def _nothing_left(house: House) -> bool:
    """Nothing is on its way: what was told is published, and what was fired has been handled."""
    return not await house.rows("select 1 from outbox union all select 1 from timers")


async def test_a_budget_that_is_removed_keeps_nobody_waiting(house: House) -> None:
    await house.register(ASKING)
    await limit(house, 0)
    async with house.host() as host:
        run = await house.submit(host, "asking")
        await waiting(house, run)
        await remove_budget(house.database.admin, house.tenant, "tenant", "total")
        assert (await house.ended(run))["status"] == "succeeded"


async def test_a_waiting_step_is_cancelled_with_its_run(house: House) -> None:
    await house.register(ASKING)
    await limit(house, 0)
    async with house.host() as host, door(house, host) as api:
        run = await house.submit(host, "asking")
        await waiting(house, run)
        steps = (await api.get(f"/v1/runs/{run}/steps")).json()["items"]
        assert [(step["kind"], step["status"]) for step in steps] == [("budget", "requested")]
        await api.post(f"/v1/runs/{run}/cancel")
        assert (await house.ended(run))["status"] == "cancelled"
        assert await house.rows("select * from timers") == []
        await limit(house, 1000)
    assert [row["status"] for row in await house.rows("select status from steps")] == ["halted"]


async def test_a_person_gives_a_run_more_or_does_not(house: House) -> None:
    await house.register({**ASKING, "limits": {"steps": 5, "usd": 0.0001, "at_limit": "ask"}})
    async with house.host() as host, door(house, host) as api:
        yes, no = [await house.submit(host, "asking") for _ in range(2)]
        for run in (yes, no):
            await waiting(house, run, "approval")
        tasks = {item["run"]: item for item in (await api.get("/v1/tasks")).json()["items"]}
        asked = tasks[str(yes)]
        assert (asked["use"], asked["out"]) == ("budget", {"approve": "bool", "usd": "double"})
        assert asked["input"] == {
            "scope": "run", "period": "total", "limit_micro": 100, "spent_micro": 0, "held_micro": 0,
            "remaining_micro": 100, "resets_at": None, "needed_micro": HOLD, "input": {},
        }  # fmt: skip
        wrong = await api.post(f"/v1/runs/{yes}/steps/1/answer", json={"result": {"usd": -1, "more": 1}})
        assert (wrong.status_code, len(wrong.json()["errors"])) == (422, 3)
        for run, approve in ((yes, True), (no, False)):
            done = await api.post(f"/v1/runs/{run}/steps/1/answer", json={"result": {"approve": approve}, "by": "ann"})
            assert done.status_code == 202
        rows = [await house.ended(run) for run in (yes, no)]
        assert (await api.get("/v1/tasks")).json()["items"] == []
    assert [row["status"] for row in rows] == ["succeeded", "failed"]
    assert rows[0]["limit_micro"] == HOLD
    assert "not approved by ann" in rows[1]["error"]["message"]


async def test_runs_are_charged_to_the_budget_they_name(house: House) -> None:
    await house.register({**ASKING, "limits": {**ASKING["limits"], "budget": "usual"}})
    for name in ("usual", "special"):
        await limit(house, 1000, f"budget:{name}")
    async with house.host() as host, door(house, host) as api:
        body = {"workflow": "asking", "budget": "special"}
        first = (await api.post("/v1/runs?wait=20s", json=body)).json()
        second = (await api.post("/v1/runs?wait=20s", json={"workflow": "asking"})).json()
        assert (first["status"], first["budget"], second["budget"]) == ("succeeded", "special", "usual")
        listed = {item["scope"]: item for item in (await api.get("/v1/budgets")).json()["items"]}
        assert listed["budget:usual"]["spent_micro"] == second["spent_micro"]
        assert listed["budget:special"]["spent_micro"] == first["spent_micro"]
        assert listed["budget:special"]["remaining_micro"] == 1000 - first["spent_micro"]
        nowhere = await api.post("/v1/runs", json={**body, "budget": "nowhere"})
        assert (nowhere.status_code, nowhere.json()["code"]) == (422, "unknown_budget")


async def test_an_event_says_which_budget_its_run_is_charged_to(house: House) -> None:
    trigger = {"type": "com.example.asked", "budget": "event.data.team"}
    await house.register({**ASKING, "trigger": trigger, "limits": {**ASKING["limits"], "budget": "usual"}})
    for name in ("usual", "blue"):
        await limit(house, 1000, f"budget:{name}")
    async with house.host() as host, door(house, host) as api:
        for number, team in enumerate(("blue", "", 7, "zzz", "Not A Name")):
            event = {"specversion": "1.0", "id": str(number), "source": "/x", "type": "com.example.asked"}
            headers = {"content-type": "application/cloudevents+json"}
            done = await api.post("/v1/events", json={**event, "data": {"team": team}}, headers=headers)
            assert done.status_code == 202
        rows = await eventually(lambda: _ended(house, 5))
    ran = sorted((row["budget"], row["spent_micro"]) for row in rows if row["status"] == "succeeded")
    spent = {each["scope"]: each["spent_micro"] for each in await house.rows("select * from budgets")}
    (_, micro), *_ = ran
    assert ran == [("blue", micro), ("usual", micro), ("usual", micro)]
    assert spent == {"budget:blue": micro, "budget:usual": 2 * micro}
    failed = [row["error"] for row in rows if row["status"] == "failed"]
    assert [(error["code"], error["path"]) for error in failed] == [("unknown_budget", "trigger.budget")] * 2
    said = " ".join(error["message"] for error in failed)
    assert "'zzz'" in said
    assert "'Not A Name'" in said


async def _ended(house: House, count: int) -> Any:
    rows = await house.rows("select * from runs where finished_at is not null")
    return rows if len(rows) == count else None


async def test_a_child_run_is_charged_to_its_own_budget_or_its_parents(house: House) -> None:
    await house.register({**ASKING, "name": "own", "limits": {**ASKING["limits"], "budget": "its"}})
    await house.register({**ASKING, "name": "inherits"})
    tasks = {name: {"kind": "workflow", "use": name, "usd": 0.001} for name in ("own", "inherits")}
    parent = {"limits": {"steps": 5, "usd": 0.01, "budget": "team"}, "tasks": tasks, "root": {"sequence": list(tasks)}}
    await house.register({"agentflow": "plan/v1", "kind": "bt", "name": "parent", **parent})
    for scope in ("budget:its", "budget:team", "tenant", "workflow:parent", "workflow:own"):
        await limit(house, 10_000, scope)
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "parent"))
    spent = {each["scope"]: each["spent_micro"] for each in await house.rows("select * from budgets")}
    each = row["spent_micro"] // 2
    assert row["status"] == "succeeded"
    assert spent == {
        "budget:its": each, "budget:team": each, "tenant": 2 * each, "workflow:parent": 2 * each, "workflow:own": each
    }  # fmt: skip


async def test_a_run_is_not_accepted_where_nothing_is_left(house: House) -> None:
    await house.register(ASKING)
    free = {**ASKING, "name": "free", "limits": {"steps": 2}, "tasks": {"echo": {"kind": "tool", "use": "std.echo"}}}
    await house.register({**free, "root": {"sequence": ["echo"]}})
    await house.register({**ASKING, "name": "strict", "limits": {"steps": 5, "usd": 0.01}})
    await limit(house, 1000)
    await limit(house, 0, "workflow:strict", "month")
    await limit(house, 0, "workflow:asking", "month")
    async with house.host() as host, door(house, host) as api:
        refused = await api.post("/v1/runs", json={"workflow": "strict"})
        assert refused.status_code == 402
        problem = refused.json()
        assert refused.headers["content-type"] == "application/problem+json"
        told = {name: value for name, value in problem["budget"].items() if name != "resets_at"}
        assert told == {
            "scope": "workflow:strict", "period": "month", "limit_micro": 0, "spent_micro": 0, "held_micro": 0,
            "remaining_micro": 0,
        }  # fmt: skip
        assert problem["budget"]["resets_at"] in problem["detail"]
        described = shapes.ProblemDocument.model_validate(problem).model_dump(mode="json", exclude_unset=True)
        assert described == problem, "the OpenAPI document names all that it says"
        assert (await api.post("/v1/runs?wait=20s", json={"workflow": "free"})).json()["status"] == "succeeded"
        waits = await api.post("/v1/runs", json={"workflow": "asking"})
        assert waits.status_code == 202, "what waits for headroom is accepted where there is none"
        await waiting(house, UUID(waits.json()["id"]))
    assert len(await house.rows("select * from runs")) == 2


async def test_an_event_and_a_child_start_nothing_either_where_nothing_is_left(house: House) -> None:
    first = {"sequence": ["echo", "ask"]}
    tasks = {**ASKING["tasks"], "echo": {"kind": "tool", "use": "std.echo"}}
    strict = {**ASKING, "name": "strict", "limits": {"steps": 5, "usd": 0.01}, "tasks": tasks, "root": first}
    await house.register({**strict, "trigger": {"type": "com.example.asked"}})
    sub = {"kind": "workflow", "use": "strict", "usd": 0.005}
    await house.register({**strict, "name": "parent", "tasks": {"sub": sub}, "root": {"sequence": ["sub"]}})
    await limit(house, 0, "workflow:strict", "day")
    async with house.host() as host, door(house, host) as api:
        event = {"specversion": "1.0", "id": "1", "source": "/t", "type": "com.example.asked"}
        said = await api.post("/v1/events", json=event, headers={"content-type": "application/cloudevents+json"})
        assert said.status_code == 202
        assert (await house.ended(await house.submit(host, "parent")))["status"] == "failed"
        rows = await eventually(lambda: _ended(house, 3))
    for row in rows:
        if row["workflow"] == "strict":
            assert (row["error"]["code"], row["error"]["path"], row["steps"]) == ("budget_exhausted", "budget", 0)
            assert "0 left of 0 for the day until " in row["error"]["message"]
            assert "(0 spent, 0 held)" in row["error"]["message"]
    (sub_error,) = await house.rows("select error ->> 'code' as code from steps")
    assert sub_error["code"] == "budget_exhausted"


async def test_what_budgets_tell_reaches_the_public(house: House) -> None:
    await house.register(ASKING)
    await limit(house, 1000, soft_micro=1)
    async with house.host() as host:
        await house.ended(await house.submit(host, "asking"))
        # Published at once, and so forgotten: nobody sends it again.
        await eventually(lambda: _none(house, "budget.warning"), within_s=5)


async def _none(house: House, name: str) -> bool:
    return not await published(house, name)


async def test_what_is_held_for_a_call_that_is_halted_before_anybody_makes_it_is_given_back(house: House) -> None:
    await house.register(ASKING)
    await limit(house, 1000)
    async with house.host(tuple(name for name in ALL if name != "invoke_llm")) as host, door(house, host) as api:
        run = await house.submit(host, "asking")
        await waiting(house, run, "call")
        await api.post(f"/v1/runs/{run}/cancel")
        await house.ended(run)
        await eventually(lambda: house.rows("select 1 from ledger where entry = 'release'"), within_s=5)
    entries = await house.rows("select entry, amount_micro, held_micro from ledger order by at")
    assert entries == [
        {"entry": "hold", "amount_micro": HOLD, "held_micro": HOLD},
        {"entry": "release", "amount_micro": HOLD, "held_micro": -HOLD},
    ]
    (account,) = await house.rows("select spent_micro, held_micro from budgets")
    assert account == {"spent_micro": 0, "held_micro": 0}
    assert await house.rows("select * from timers") == []


async def test_what_is_held_for_a_call_that_is_halted_while_it_is_made_stays_until_its_time_is_over(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "HOLD_GRACE_MS", 500)
    asking = {**ASKING, "tasks": {"ask": {**ASKING["tasks"]["ask"], "timeout": "2s"}}}
    await house.register(asking)
    script(house, 1900)
    await limit(house, 1000)
    async with house.host() as host, door(house, host) as api:
        run = await house.submit(host, "asking")
        await eventually(lambda: house.rows("select 1 from claims"))
        await api.post(f"/v1/runs/{run}/cancel")
        await house.ended(run)
        await eventually(lambda: house.rows("select 1 from ledger where entry = 'settle'"), within_s=15)
    entries = await house.rows("select entry, amount_micro, held_micro from ledger order by entry")
    assert [(row["entry"], row["amount_micro"], row["held_micro"]) for row in entries] == [
        ("dispatch", HOLD, 0), ("hold", HOLD, HOLD), ("settle", HOLD, -HOLD)
    ]  # fmt: skip
    assert await house.rows("select * from claims") == []
