"""Corrections on the real stack: what an administrator says was spent besides, or given back, counts everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from house import House, all_decided_again, door, eventually

from agentflow.runtime.host import Host
from agentflow.store.admin import issue_key, set_price
from agentflow.store.audit import verify
from agentflow.store.budgets import set_budget
from agentflow.store.chain import ChainKeys
from agentflow.store.sealing import seal

PRICE = 500
PAID = {
    "agentflow": "plan/v1", "kind": "bt", "name": "paid", "limits": {"steps": 5, "usd": 0.01, "budget": "team"},
    "tasks": {"pay": {"kind": "tool", "use": "std.echo", "usd": PRICE / 1e6}}, "root": {"sequence": ["pay", "pay"]},
}  # fmt: skip
SCOPES = (("tenant", "total"), ("tenant", "day"), ("workflow:paid", "month"), ("budget:team", "total"))


@asynccontextmanager
async def administering(house: House, host: Host) -> AsyncIterator[httpx.AsyncClient]:
    """The API of a host, for an administrator."""
    key = str(await issue_key(house.database.admin, house.tenant, house.settings.key_pepper, admin=True))
    async with door(house, host) as api:
        api.headers["authorization"] = f"Bearer {key}"
        yield api


async def corrected(api: httpx.AsyncClient, amount: int, key: str = "", **more: Any) -> httpx.Response:
    body = {"amount_micro": amount, "reason": "invoice 7", **more}
    return await api.post("/v1/corrections", json=body, headers={"idempotency-key": key or str(uuid4())})


async def limit(house: House, micro: int | None, scope: str = "tenant", period: str = "total") -> None:
    await set_budget(house.database.admin, house.tenant, scope, period, limit_micro=micro)


async def accounts(house: House) -> dict[tuple[str, str], int]:
    rows = await house.rows("select scope, period, spent_micro, held_micro from budgets")
    assert not any(row["held_micro"] for row in rows)
    return {(row["scope"], row["period"]): row["spent_micro"] for row in rows}


async def reported(api: httpx.AsyncClient, by: str) -> list[tuple[int, int, int]]:
    items = (await api.get("/v1/costs", params={"by": by, "period": "total"})).json()["items"]
    return [(item["cost_micro"], item["corrected_micro"], item["calls"]) for item in items]


async def paid(house: House, host: Host) -> UUID:
    run = await house.submit(host, "paid")
    assert (await house.ended(run))["spent_micro"] == 2 * PRICE
    return run


async def sound(house: House) -> None:
    """The audit chain verifies, with the ledger in it; all runs are decided again and come to the same."""
    keys = ChainKeys(house.settings.audit_key)
    await seal(house.database.dsn("agentflow_relay"), keys)
    assert await found(house) == []
    await all_decided_again(house)


async def found(house: House) -> list[str]:
    """What the audit chain has to say."""
    keys = ChainKeys(house.settings.audit_key)
    return (await verify(house.database.dsn("agentflow_engine"), keys, house.tenant)).findings


CHEAPER = {
    "agentflow": "plan/v1", "kind": "bt", "name": "paid", "limits": {"steps": 5, "usd": 0.05}, "root": "ask",
    "tasks": {"ask": {"kind": "llm", "use": "small", "cheaper": "tiny", "prompt": "Hello", "max_tokens": 20}},
}  # fmt: skip
DEAR = {"input_micro_per_mtok": 10**10, "output_micro_per_mtok": 10**10}


async def test_a_correction_of_a_step_counts_for_the_model_that_was_asked(house: House) -> None:
    (Path(house.settings.script_dir) / "tiny.model.yaml").write_text('rules:\n  - {prompt: ".", reply: "hi"}\n')
    await set_price(house.database.admin, house.tenant, "model:small", DEAR)
    await house.register(CHEAPER)
    async with house.host() as host, administering(house, host) as api:
        run = await house.submit(host, "paid")
        assert (await house.ended(run))["status"] == "succeeded"
        assert (await corrected(api, 70, run=str(run), step=1)).status_code == 201
        (item,) = (await api.get("/v1/costs", params={"by": "model", "period": "total"})).json()["items"]
        assert (item["model"], item["corrected_micro"], item["calls"]) == ("tiny", 70, 1)
    await sound(house)


async def test_a_runs_correction_counts_in_all_that_it_is_charged_to(house: House) -> None:
    await house.register(PAID)
    for scope, period in SCOPES:
        await limit(house, 10_000, scope, period)
    async with house.host() as host, administering(house, host) as api:
        run = await paid(house, host)
        first = await corrected(api, -300, "refund", run=str(run), step=2)
        assert first.status_code == 201, first.text
        assert first.json()["run"] == str(run)
        assert (await corrected(api, 70, run=str(run))).status_code == 201
        assert await accounts(house) == dict.fromkeys(SCOPES, 770)
        whole = (await api.get(f"/v1/runs/{run}")).json()
        assert (whole["spent_micro"], whole["held_micro"]) == (770, 0)
        assert await reported(api, "workflow") == await reported(api, "tenant") == [(770, -230, 2)]
        assert sorted(await reported(api, "step")) == [(70, 70, 0), (700, -300, 2)]
        assert await reported(api, "tool") == [(700, -300, 2)]
        (report,) = (await api.get("/v1/costs?period=total")).json()["items"]
        assert report["run_mean_micro"] == 770
        told = (await api.get("/v1/costs?period=total&format=csv")).text.splitlines()
        assert "-0.000230" in told[1].split(",")
        listed = (await api.get("/v1/corrections?limit=1")).json()
        assert [each["amount_micro"] for each in listed["items"]] == [70]
        rest = (await api.get("/v1/corrections", params={"cursor": listed["next"]})).json()
        assert [(each["key"], each["step"]) for each in rest["items"]] == [("refund", 2)]
    entries = await house.rows("select * from ledger where entry = 'correct' order by at")
    assert [(each["step"], each["attempt"], each["amount_micro"]) for each in entries] == [(2, 1, -300), (0, 2, 70)]
    assert entries[0]["usage"]["reason"] == "invoice 7"
    (ledger,) = await house.rows("select sum(amount_micro)::int as n from ledger where entry in ('settle', 'correct')")
    assert ledger["n"] == 770
    await sound(house)
    await house.rows("update ledger set amount_micro = -400 where entry = 'correct' and step = 2 returning 1")
    assert await found(house), "the chain covers corrections"


async def test_a_key_counts_once_however_often_it_comes(house: House) -> None:
    await house.register(PAID)
    await limit(house, 10_000)
    async with house.host() as host, administering(house, host) as api:
        run = await paid(house, host)
        answers = await asyncio.gather(*(corrected(api, -300, "same", run=str(run)) for _ in range(5)))
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert len({answer.json()["made_at"] for answer in answers}) == 1
        other = await corrected(api, -200, "same", run=str(run))
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert await accounts(house) == {("tenant", "total"): 700}
    assert len(await house.rows("select 1 from ledger where entry = 'correct'")) == 1


async def test_a_scopes_correction_moves_the_tenants_accounts_with_it(house: House) -> None:
    await house.register(PAID)
    for scope, period in SCOPES:
        await limit(house, 10_000, scope, period)
    async with house.host() as host, administering(house, host) as api:
        await paid(house, host)
        assert (await corrected(api, 50)).status_code == 201
        assert (await corrected(api, -250, scope="workflow:paid")).status_code == 201
        assert await accounts(house) == {
            ("tenant", "total"): 800, ("tenant", "day"): 800, ("workflow:paid", "month"): 750,
            ("budget:team", "total"): 1000,
        }  # fmt: skip
        assert sorted(await reported(api, "workflow")) == [(50, 50, 0), (750, -250, 2)]
        assert await reported(api, "tenant") == [(800, -200, 2)]
        too_much = await corrected(api, -751, scope="workflow:paid")
        assert (too_much.status_code, too_much.json()["code"]) == (422, "below_zero")
        # What was spent in an earlier period gives this one no headroom.
        await house.rows("update budgets set spent_micro = 10 where period = 'day' returning 1")
        assert (await corrected(api, -100)).status_code == 201
        assert (await accounts(house))["tenant", "day"] == 0
        assert (await accounts(house))["tenant", "total"] == 700
    await sound(house)
    async with await psycopg.AsyncConnection.connect(house.database.admin) as conn:
        await conn.execute("set session_replication_role = replica")  # no trigger keeps it
        await conn.execute("update agentflow.corrections set amount_micro = -1 where amount_micro = -250")
    assert any("was changed" in each for each in await found(house))


async def test_what_was_billed_beyond_a_limit_is_recorded_and_keeps_more_from_starting(house: House) -> None:
    await house.register(PAID)
    await limit(house, 1_200)
    async with house.host() as host, administering(house, host) as api:
        run = await paid(house, host)
        assert (await corrected(api, 9_500, run=str(run))).status_code == 201
        assert await accounts(house) == {("tenant", "total"): 10_500}
        whole = await house.run(run)
        assert (whole["spent_micro"], whole["frozen"]) == (10_500, True)  # more than limits.usd
        refused = await api.post("/v1/runs", json={"workflow": "paid"})
        assert (refused.status_code, refused.json()["budget"]["spent_micro"]) == (402, 10_500)
        assert (await corrected(api, -10_500, run=str(run))).status_code == 201
        await paid(house, host)
    await sound(house)


async def test_a_refund_wakes_who_waits_for_headroom(house: House) -> None:
    await house.register({**PAID, "limits": {**PAID["limits"], "at_limit": "wait"}})
    await limit(house, 1_000)
    async with house.host() as host, administering(house, host) as api:
        first = await paid(house, host)
        run = await house.submit(host, "paid")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'budget'"))
        assert (await corrected(api, -1_000, run=str(first))).status_code == 201
        assert (await house.ended(run, within_s=10))["status"] == "succeeded"
    await sound(house)


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"amount_micro": 0}, 422, "nothing to correct"),
    ({"amount_micro": 10**13}, 422, "amount_micro"),
    ({"amount_micro": 1.5}, 422, "amount_micro"),
    ({"amount_micro": "1"}, 422, "amount_micro"),
    ({"reason": ""}, 422, "reason"),
    ({"reason": "  "}, 422, "reason"),
    ({"scope": "team"}, 422, "scope"),
    ({"scope": "workflow:paid", "run": str(UUID(int=1))}, 422, "give `run` or `scope`"),
    ({"run": "x"}, 422, "run"),
    ({"step": 1}, 422, "step"),
    ({"run": str(UUID(int=1))}, 404, "no such run"),
    ({"currency": "EUR"}, 422, "currency"),
]


async def test_nonsense_and_strangers_change_nothing(house: House) -> None:
    await house.register(PAID)
    await limit(house, 10_000)
    async with house.host() as host, administering(house, host) as api, door(house, host) as stranger:
        run = await paid(house, host)
        for body, status, said in REFUSED:
            answer = await corrected(api, 5, **body)
            assert answer.status_code == status, answer.text
            assert said in answer.text
        mine = {"run": str(run)}
        for more, code in (({"amount": -1001}, "below_zero"), ({"amount": 5, "step": 9}, "unknown_step")):
            answer = await corrected(api, **mine, **more)
            assert (answer.status_code, answer.json()["code"]) == (422, code)
        answer = await corrected(stranger, 5, **mine)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        answer = await api.post("/v1/corrections", json={"amount_micro": 5, "reason": "r"})
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "Idempotency-Key")
    assert await accounts(house) == {("tenant", "total"): 1_000}
    assert await house.rows("select 1 from ledger where entry = 'correct'") == []


@pytest.mark.parametrize("what", ["update corrections set why = 'other'", "delete from corrections"])
async def test_a_correction_is_never_changed(house: House, what: str) -> None:
    async with house.host() as host, administering(house, host) as api:
        assert (await corrected(api, 5)).status_code == 201
    with pytest.raises(Exception, match="never changed"):
        await house.rows(f"{what} returning 1")
