"""Estimates of a running house: what is expected comes true; what may be too dear is refused, whoever starts it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from house import House, door, eventually

from agentflow.control import estimates, shapes
from agentflow.store.admin import set_price

RULES = """
rules:
  - prompt: "Judge"
    replies:
      - {ok: true, why: "short, and to the point of it"}
      - {ok: true, why: "somewhat longer than that, as it goes with people"}
      - {ok: false, why: "no"}
  - {prompt: "Look", call: {std_echo: {text: "seen"}}, role: user}
  - {prompt: "seen", role: tool, replies: ["It is there.", "There, and nowhere else in the world.", "It is not."]}
  - prompt: "Tell (?P<what>.*)"
    replies:  # from 12 tokens to 40 and what it was asked for
      - It is what everybody thinks that it is, more or less.
      - It is well known to whoever has seen it before, and is liked by most of them for what it does.
      - '{what} has been with us for a hundred years or more; nobody remembers who has brought it here.'
      - Who asks for it should not be surprised to be given it.
      - >-
        There is much to tell of it, and little time: it came late, it stayed long, and when it had gone at last there
        were some who said that they had never seen the like.
"""
TELL: dict[str, Any] = {
    "kind": "llm", "use": "small", "prompt": "Tell {it}", "in": {"it": "topic"}, "max_tokens": 60, "retry": {"max": 2},
}
JUDGE = {**TELL, "prompt": "Judge {it}", "out": {"ok": "bool", "why": "string"}}
LOOK = {"micro_per_call": 500, "micro_per_million_seconds": 0}  # what its tool costs the agent


def document(name: str, root: Any, tasks: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "agentflow": "plan/v1", "kind": "bt", "name": name, "limits": {"steps": 90, "usd": 1},
        "input": {"topic": "string", "words": "list(string)"}, "vars": {"why": "string"}, "tasks": tasks, "root": root,
        **parts,
    }  # fmt: skip


EACH = {**TELL, "in": {"it": "item"}}
AGAIN = {**JUDGE, "in": {"it": "topic + why"}}
FLOWS = [
    document("plain", "tell", {"tell": TELL}),
    document("each", {"map": "tell", "over": "words", "max": 20}, {"tell": EACH}),
    document(
        "twice", {"sequence": ["judge", {"map": "tell", "over": "words", "max": 20}]}, {"judge": JUDGE, "tell": EACH}
    ),
    document(
        "again",
        {"fallback": [
            {"retry": {"task": "judge", "set": {"why": "why + result.why"}, "ok_if": "result.ok"}, "max": 3}, "tell",
        ]},
        {"judge": AGAIN, "tell": TELL},
    ),
    document(
        "chosen",
        {"sequence": [{"task": "judge", "set": {"why": "string(result.ok)"}},
                      {"if": "why == 'true'", "then": "tell", "else": {"map": "each", "over": "words", "max": 20}}]},
        {"judge": JUDGE, "tell": TELL, "each": EACH},
    ),
    document(
        "agent", {"sequence": ["find", "tell"]},
        {"find": {"kind": "agent", "use": "clerk", "prompt": "Look for {it}", "in": {"it": "topic"}, "turns": 3},
         "tell": TELL},
        agents={"clerk": {"model": "small", "tools": ["std.echo"]}},
    ),
]  # fmt: skip


@pytest.fixture
async def served(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    monkeypatch.setattr(estimates, "KNOWN_S", 0.0)  # what was seen a moment ago counts
    (house.settings.script_dir / "x.model.yaml").write_text(RULES)
    await set_price(house.database.admin, house.tenant, "tool:std.echo", LOOK)
    async with house.host() as host, door(house, host) as api:
        yield house, api


def inputs(chance: random.Random) -> dict[str, Any]:
    word = lambda: "".join(chance.choices("abcdefgh ", k=chance.randint(3, 60)))  # noqa: E731
    return {"topic": word(), "words": [word() for _ in range(chance.randint(1, 9))]}


async def ran(api: httpx.AsyncClient, name: str, given: dict[str, Any]) -> dict[str, Any]:
    answer = await api.post("/v1/runs?wait=30s", json={"workflow": name, "input": given})
    assert answer.status_code == 200, answer.text
    row: dict[str, Any] = answer.json()
    assert row["status"] == "succeeded", row["error"]
    return row


async def estimated(api: httpx.AsyncClient, name: str, given: dict[str, Any]) -> dict[str, Any]:
    answer = await api.post(f"/v1/workflows/{name}/estimate", json={"input": given})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_after_fifty_runs_what_is_expected_is_what_it_comes_to(served: tuple[House, httpx.AsyncClient]) -> None:
    """Of each workflow 50 runs are seen; then 50 more are estimated, and carried out: those of all at once. How much of
    the difference is chance, tests/store/test_observed.py says."""
    house, api = served
    for flow in FLOWS:
        await house.register(flow)
    names = [flow["name"] for flow in FLOWS]
    chances = {name: random.Random(number) for number, name in enumerate(names)}
    seen, asked = ([(name, inputs(chances[name])) for name in names for _ in range(50)] for _ in range(2))
    few = asyncio.Semaphore(50)

    async def each(of: Any, asked: tuple[str, dict[str, Any]]) -> dict[str, Any]:
        async with few:
            found: dict[str, Any] = await of(api, *asked)
            return found

    await asyncio.gather(*(each(ran, run) for run in seen))
    said = await asyncio.gather(*(each(estimated, run) for run in asked))
    rows = await asyncio.gather(*(each(ran, run) for run in asked))
    sums: dict[str, list[int]] = {name: [0, 0] for name in names}
    for (name, _), estimate, row in zip(asked, said, rows, strict=True):
        cost, spent = estimate["cost_micro"], row["spent_micro"]
        assert estimate["runs_observed"] == 50
        assert cost["least"] <= spent <= cost["most"]
        sums[name][0] += cost["expected"]
        sums[name][1] += spent
    errors = {name: expected / spent - 1 for name, (expected, spent) in sums.items()}
    print({name: f"{error:+.1%}" for name, error in errors.items()})
    assert median(map(abs, errors.values())) <= 0.05, errors
    reports = (await api.get("/v1/costs", params={"by": "workflow", "period": "total"})).json()["items"]
    for item in reports:
        assert item["runs"] == item["estimated"]["runs"] == 100
        assert item["estimated"]["cost_micro"] == item["cost_micro"]


async def test_an_estimate_says_what_it_rests_on(served: tuple[House, httpx.AsyncClient]) -> None:
    house, api = served
    await house.register(FLOWS[1])
    given = {"topic": "t", "words": ["a", "b"]}
    first = (await api.post("/v1/workflows/each/estimate", json={"input": given})).json()
    assert (first["runs_observed"], first["bounded_by"]) == (0, "plan")
    assert first["note"].startswith("no runs observed yet")
    assert "calls that are lost" in first["on_top"]
    (task,) = first["tasks"]
    assert (task["task"], task["starts"], task["observed"]) == ("tell", {"least": 2, "expected": 2, "most": 2}, False)
    await ran(api, "each", given)
    second = (await api.post("/v1/workflows/each/estimate", json={"input": given})).json()
    assert (second["runs_observed"], second["version_observed"], second["note"]) == (1, 1, "")
    assert second["cost_micro"]["expected"] == (await house.rows("select spent_micro from runs"))[0]["spent_micro"]
    less = {"input": given, "budget_usd": 0.00001}
    third = (await api.post("/v1/workflows/each/estimate", json=less)).json()
    assert (third["bounded_by"], third["cost_micro"]["most"], third["limit_micro"]) == ("budget_usd", 10, 10)


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        ({"input": {"topic": "t"}}, 422, "input.words"),
        ({"input": {"topic": 1, "words": []}}, 422, "input.topic"),
        ({"input": {"topic": "t", "words": [], "x": 1}}, 422, "input.x"),
        ({"input": {"topic": "t", "words": []}, "budget_usd": -1}, 422, "budget_usd"),
        ({"input": {"topic": "t", "words": []}, "budget_usd": 1e300}, 422, "budget_usd"),
        ({"input": [], "version": 1}, 422, "input"),
        ({"version": 0}, 422, "version"),
        ({"version": 9}, 404, None),
        ({"budget": 1}, 422, "budget"),
    ],
)
async def test_nonsense_is_refused_with_its_path(
    served: tuple[House, httpx.AsyncClient], body: dict[str, Any], status: int, path: str | None
) -> None:
    house, api = served
    await house.register(FLOWS[1])
    answer = await api.post("/v1/workflows/each/estimate", json=body)
    assert answer.status_code == status, answer.text
    assert path is None or path in [fault["path"] for fault in answer.json()["errors"]]
    assert (await api.post("/v1/workflows/nothing/estimate", json=body)).status_code in (404, 422)


REFUSING = {**FLOWS[1], "name": "careful", "limits": {"steps": 90, "usd": 0.001, "preflight": "refuse"}}
WORDS = {"topic": "t", "words": ["a", "b", "c", "d", "e", "f"]}


async def test_a_run_that_may_be_too_dear_is_refused_with_both_numbers(served: tuple[House, httpx.AsyncClient]) -> None:
    house, api = served
    await house.register(REFUSING)
    most = (await api.post("/v1/workflows/careful/estimate", json={"input": WORDS})).json()["plan_most_micro"]
    answer = await api.post("/v1/runs", json={"workflow": "careful", "input": WORDS})
    fault = answer.json()
    assert (answer.status_code, fault["code"]) == (402, "estimate_exceeds_budget")
    assert fault["estimate"] == {"most_micro": most}
    described = shapes.ProblemDocument.model_validate(fault).model_dump(mode="json", exclude_unset=True)
    assert described == fault, "the OpenAPI document names all that it says"
    assert (fault["budget"]["limit_micro"], fault["budget"]["remaining_micro"]) == (1_000, 1_000)
    assert str(most) in fault["detail"] and "1000" in fault["detail"]
    assert "raise limits.usd" in fault["mend"]
    assert await house.rows("select * from runs") == []
    few = {"topic": "t", "words": ["a"]}
    assert (await ran(api, "careful", few))["spent_micro"] <= 1_000


async def test_what_the_tenant_has_left_counts_as_well(served: tuple[House, httpx.AsyncClient]) -> None:
    house, api = served
    await house.register({**REFUSING, "limits": {"steps": 90, "usd": 1, "preflight": "refuse"}})
    query = "insert into budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', 900) returning 1"
    await house.rows(query, house.tenant)
    fault = (await api.post("/v1/runs", json={"workflow": "careful", "input": WORDS})).json()
    assert (fault["status"], fault["budget"]["scope"], fault["budget"]["remaining_micro"]) == (402, "tenant", 900)


async def test_a_run_that_only_warns_is_started(served: tuple[House, httpx.AsyncClient]) -> None:
    house, api = served
    await house.register({**REFUSING, "limits": {**REFUSING["limits"], "preflight": "warn"}})
    answer = await api.post("/v1/runs", json={"workflow": "careful", "input": WORDS})
    assert answer.status_code == 202
    (warning,) = answer.json()["warnings"]
    assert (warning["code"], warning["path"]) == ("estimate_exceeds_budget", "limits.usd")
    quiet = {**REFUSING, "name": "quiet", "limits": {"steps": 90, "usd": 0.001}}
    await house.register(quiet)
    assert (await api.post("/v1/runs", json={"workflow": "quiet", "input": WORDS})).json()["warnings"] == []


async def test_a_child_and_an_event_follow_the_same_rule(served: tuple[House, httpx.AsyncClient]) -> None:
    house, api = served
    trigger = {"type": "com.example.asked", "input": {"topic": "event.data.topic", "words": "event.data.words"}}
    await house.register({**REFUSING, "trigger": trigger})
    sub = {"kind": "workflow", "use": "careful", "in": {"topic": "topic", "words": "words"}, "usd": 0.5}
    await house.register(document("parent", "sub", {"sub": sub}))
    answer = await api.post("/v1/runs?wait=30s", json={"workflow": "parent", "input": WORDS})
    assert (answer.json()["status"], answer.json()["spent_micro"]) == ("failed", 0)
    event = {"specversion": "1.0", "id": str(uuid4()), "source": "/t", "type": "com.example.asked", "data": WORDS}
    said = await api.post("/v1/events", json=event, headers={"content-type": "application/cloudevents+json"})
    assert said.status_code == 202
    rows = await eventually(lambda: _two(house))
    for row in rows:
        assert (row["status"], row["error"]["code"]) == ("failed", "estimate_exceeds_budget")
        assert row["error"]["path"] == "limits.preflight"
        assert "1000" in row["error"]["message"]


async def _two(house: House) -> list[dict[str, Any]]:
    rows = await house.rows("select * from runs where workflow = 'careful' and finished_at is not null")
    return rows if len(rows) == 2 else []


async def test_nobody_learns_from_another_tenants_runs(served: tuple[House, httpx.AsyncClient]) -> None:
    house, api = served
    await house.register(FLOWS[0])
    await ran(api, "plain", WORDS)
    other = UUID(int=7)
    await house.rows("insert into tenants (tenant_id, name) values (%s, 'other') returning 1", other)
    await house.rows("update run_spend set tenant_id = %s returning 1", other)
    said = (await api.post("/v1/workflows/plain/estimate", json={"input": WORDS})).json()
    assert said["runs_observed"] == 0
