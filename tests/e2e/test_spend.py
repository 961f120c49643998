"""The roll-up of what was spent: always the sum of the ledger, whoever settled it, and when."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from house import House, eventually

from agentflow.core.message import Message
from agentflow.runtime.batch import Item
from agentflow.store.postgres import SQL

RULES = """
rules:
  - {prompt: "Look", call: {look: {q: 1}}, role: user}
  - {prompt: "found", role: tool, reply: "It is there."}
  - {prompt: "Say (?P<what>.+)", reply: "You said {what}, and {what} again."}
  - {prompt: "Wait", reply: "late", latency_ms: 60000}
"""
LOOK = {"kind": "python", "code": "def run(q): return {'found': q}", "in": {"q": "int"}, "usd": 0.0005}
PAID: dict[str, Any] = {
    "agentflow": "plan/v1", "kind": "bt", "name": "paid", "limits": {"steps": 40, "usd": 1},
    "input": {"words": "list(string)"}, "vars": {"text": "string"}, "tools": {"look": LOOK},
    "agents": {"clerk": {"model": "small", "tools": ["look"]}},
    "tasks": {
        "say": {"kind": "llm", "use": "small", "in": {"word": "item"}, "prompt": "Say {word}"},
        "use": {"kind": "tool", "use": "look", "in": {"q": "3"}},
        "free": {"kind": "tool", "use": "std.echo", "in": {"q": "3"}},
        "ask": {"kind": "agent", "use": "clerk", "prompt": "Look", "turns": 3},
        "sub": {"kind": "workflow", "use": "child", "usd": 0.2},
    },
    "root": {"sequence": [{"map": "say", "over": "words", "max": 8}, "use", "free", "ask", "sub"]},
}  # fmt: skip
CHILD: dict[str, Any] = {
    "agentflow": "plan/v1", "kind": "bt", "name": "child", "limits": {"steps": 4, "usd": 0.1},
    "tasks": {"say": {"kind": "llm", "use": "small", "prompt": "Say so"}}, "root": "say",
}  # fmt: skip
BY_TASK = """
select workflow, task, kind, agent, name, sum(calls)::int as calls, sum(cost_micro)::int as cost,
       sum(input_tokens)::int as tokens_in, sum(output_tokens)::int as tokens_out
from spend group by 1, 2, 3, 4, 5 order by 1, 2, 3"""


async def number(house: House, what: str, *where: str) -> int:
    (row,) = await house.rows(f"select coalesce(sum({what}), 0)::int as n from {' '.join(where)}")
    return int(row["n"])


async def ledger(house: House) -> int:
    return await number(house, "amount_micro", "ledger where entry = 'settle' and price <> 'workflow'")


async def rolled_up(house: House) -> int:
    return await number(house, "cost_micro", "spend where kind <> 'workflow'")


@pytest.fixture
def rules(house: House) -> House:
    (house.settings.script_dir / "x.model.yaml").write_text(RULES)
    return house


@pytest.mark.parametrize("split", [False, True], ids=["together", "apart"])
async def test_what_is_rolled_up_is_what_the_ledger_says(rules: House, split: bool) -> None:
    house = rules
    for document in (PAID, CHILD):
        await house.register(document)
    names = ["plan", "dispatch", "invoke_llm", "run_tool", "api", *([] if split else ["account_cost"])]
    async with house.host(tuple(names)) as host, house.host(("account_cost",), relay=False):
        words = (["a"], ["a", "bb", "ccc"])
        runs = [await house.submit(host, "paid", {"words": each}, expected_micro=900) for each in words]
        rows = [await house.ended(run) for run in runs]
        assert [row["status"] for row in rows] == ["succeeded", "succeeded"]
        await eventually(lambda: is_equal(house))
    total = await spent(house)
    found = {(row["workflow"], row["task"], row["kind"]): row for row in await house.rows(BY_TASK)}
    calls = {key: row["calls"] for key, row in found.items()}
    assert calls == {
        ("paid", "say", "llm"): 4, ("paid", "use", "tool"): 2, ("paid", "ask", "llm"): 4, ("paid", "ask", "tool"): 2,
        ("paid", "sub", "workflow"): 2, ("child", "say", "llm"): 2,
    }  # fmt: skip
    assert {row["agent"] for key, row in found.items() if key[1] == "ask"} == {"clerk"}
    children = found["child", "say", "llm"]["cost"]
    # Settled elsewhere after its end, a child is counted in its parent as what it still holds.
    assert found["paid", "sub", "workflow"]["cost"] > children if split else children > 0
    for kind in ("in", "out"):
        used = await number(house, f"(usage ->> '{kind}put_tokens')::int", "steps")
        assert sum(row[f"tokens_{kind}"] for row in found.values()) == used > 0
    (whole,) = await house.rows(
        "select sum(runs)::int as runs, sum(succeeded)::int as succeeded, sum(cost_micro)::int as cost,"
        " sum(expected_runs)::int as expected, sum(expected_micro)::int as micro,"
        " sum(expected_cost_micro)::int as came_to from run_spend where task = '' and workflow = 'paid'"
    )
    assert whole == {"runs": 2, "succeeded": 2, "cost": total, "expected": 2, "micro": 1800, "came_to": total}
    tasks = await house.rows(
        "select task, sum(runs)::int as runs, sum(starts)::int as starts, sum(calls)::int as calls,"
        " sum(cost_micro)::int as cost from run_spend where task <> '' and workflow = 'paid' group by 1"
    )
    assert {row["task"]: (row["runs"], row["starts"], row["calls"]) for row in tasks} == {
        "say": (2, 4, 4), "use": (2, 2, 2), "ask": (2, 2, 6), "sub": (2, 2, 2),
    }  # fmt: skip
    assert sum(row["cost"] for row in tasks) == total


async def spent(house: House) -> int:
    return await number(house, "spent_micro", "runs where workflow = 'paid'")


async def is_equal(house: House) -> bool:
    whole = await number(house, "cost_micro", "run_spend where task = '' and workflow = 'paid'")
    held = await number(house, "held_micro", "runs")
    return held == 0 and whole == await spent(house) and await rolled_up(house) == await ledger(house) > 0


async def test_a_halted_call_counts_when_its_hold_expires(rules: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentflow.core.decide import settlement

    monkeypatch.setattr(settlement, "HOLD_GRACE_MS", 0)
    waiting = {
        **CHILD, "name": "waiting",
        "tasks": {"hang": {"kind": "llm", "use": "small", "prompt": "Wait", "timeout": "1s", "retry": {"max": 1}},
                  "tick": {"kind": "wait", "for": "100ms"}},
        "root": {"parallel": ["hang", "tick"], "need": 1},
    }  # fmt: skip
    await rules.register(waiting)
    async with rules.host() as host:
        row = await rules.ended(await rules.submit(host, "waiting"))
        assert (row["status"], row["spent_micro"]) == ("succeeded", 0)
        await eventually(lambda: _some(rules))
    (spent,) = await rules.rows("select task, kind, name, price, cost_micro, held_micro, calls from spend")
    held = (await rules.rows("select price from ledger where entry = 'hold'"))[0]["price"]
    assert spent == {
        "task": "hang", "kind": "llm", "name": "small", "price": held, "cost_micro": await ledger(rules),
        "held_micro": await ledger(rules), "calls": 1,
    }  # fmt: skip
    assert await number(rules, "runs", "run_spend where task = 'hang'") == 1
    assert await number(rules, "cost_micro", "run_spend where task = 'hang'") == await ledger(rules)


async def _some(house: House) -> bool:
    return await rolled_up(house) > 0


async def test_days_are_the_tenants_own(rules: House) -> None:
    await rules.register(CHILD)
    await rules.rows("update tenants set zone = 'Pacific/Kiritimati' where tenant_id = %s returning 1", rules.tenant)
    async with rules.host() as host:
        await rules.ended(await rules.submit(host, "child"))
    (row,) = await rules.rows("select day, (now() at time zone 'Pacific/Kiritimati')::date as today from spend")
    assert row["day"] == row["today"]


async def test_what_costs_nothing_writes_nothing(rules: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for name in ("add_spend", "add_run_spend"):
        monkeypatch.setitem(SQL, name, Heard(SQL[name], asked))
    free = {**CHILD, "name": "free", "tasks": {"e": {"kind": "tool", "use": "std.echo"}}, "root": "e"}
    await rules.register(free)
    async with rules.host() as host:
        run = await rules.ended(await rules.submit(host, "free"))
    assert run["status"] == "succeeded"
    assert run["state"].keys() & {"tally", "starts", "expected"} == set()
    assert await rules.rows("select * from spend") == await rules.rows("select * from run_spend") == []
    assert asked == [], "not even a statement"


class Heard:
    """A statement that says when it is made."""

    def __init__(self, statement: Any, asked: list[Any]) -> None:
        self.statement, self.asked = statement, asked

    def calls(self, rows: Any) -> Any:
        self.asked.append(rows)
        return self.statement.calls(rows)


async def test_a_message_that_comes_twice_counts_once(rules: House) -> None:
    await rules.register(CHILD)
    async with rules.host() as host:
        run = await rules.ended(await rules.submit(host, "child"))
        (step,) = await rules.rows("select * from steps")
        again = {
            "run": str(run["run_id"]), "step": 1, "attempt": 1, "epoch": 0, "task": "say", "status": "succeeded",
            "output": step["output"], "error": None, "usage": step["usage"], "cost_micro": step["cost_micro"],
            "duration_ms": 1, "late": False,
        }  # fmt: skip
        message = Message("step.completed", rules.tenant, run["run_id"], f"1.1:{uuid4()}", again)
        await host._reactor.handle(Item("account_cost", message))
    assert await rolled_up(rules) == await ledger(rules) == run["spent_micro"]
