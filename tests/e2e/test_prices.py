"""What calls cost, from a real server's word on their tokens to the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from house import House, all_decided_again
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentflow.runtime.function import NAMES as FUNCTIONS
from agentflow.runtime.serve import http_server
from agentflow.store.admin import set_price
from agentflow.store.postgres import PostgresStore

TOKENS = {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_130}
DETAILS = {
    "prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 200},
    "completion_tokens_details": {"reasoning_tokens": 30},
}
CARD = {
    "input_usd_per_mtok": 1, "output_usd_per_mtok": 2, "cache_read_usd_per_mtok": 0.1, "cache_write_usd_per_mtok": 1.25,
    "usd_per_call": 0.0005, "tiers": [{"above": 2_000, "input_usd_per_mtok": 9, "output_usd_per_mtok": 9}],
}  # fmt: skip
ASK = {
    "agentflow": "plan/v1", "name": "ask", "limits": {"steps": 4, "usd": 0.5},
    "tasks": {"ask": {"kind": "llm", "use": "small", "prompt": "x" * 1_500, "max_tokens": 500}},
}  # fmt: skip


@asynccontextmanager
async def answering(usage: Any, *, model: str = "m", after_s: float = 0) -> AsyncIterator[str]:
    """A server whose every answer tells that usage."""

    async def chat(request: Request) -> JSONResponse:
        await asyncio.sleep(after_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        return JSONResponse({"id": "1", "object": "x", "model": model, "choices": [choice], "usage": usage})

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    async with http_server(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/v1"


def table(url: str, **alias: Any) -> str:
    providers = {"far": {"base_url": url}}
    return json.dumps({"providers": providers, "models": {"small": {"provider": "far", "model": "m", **alias}}})


async def asked(house: House, models: str) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """A run of one call: its row, its step, its ledger."""
    await house.register(ASK)
    async with house.host(models=models) as host:
        run = await house.ended(await house.submit(host, "ask"))
    (step,) = await house.rows("select * from steps where run_id = %s", run["run_id"])
    asked_of_ledger = "select * from ledger where run_id = %s and entry <> 'dispatch' order by at, entry"
    ledger = await house.rows(asked_of_ledger, run["run_id"])
    await all_decided_again(house)
    return run, step, ledger


async def test_each_kind_of_token_is_held_and_settled_at_its_rate(house: House) -> None:
    async with answering(TOKENS | DETAILS) as url:
        run, step, (hold, settled) = await asked(house, table(url, **CARD))
    # 400 plain, 400 read, 200 written, 130 out (30 of it told in the total alone), and the fee of a call.
    spent = 400 + 40 + 250 + 260 + 500
    assert (run["status"], run["spent_micro"], run["held_micro"]) == ("succeeded", spent, 0)
    assert step["usage"] == {
        "input_tokens": 1_000, "output_tokens": 130, "cached_tokens": 400, "calls": 1, "cache_write_tokens": 200,
        "reasoning_tokens": 30,
    }  # fmt: skip
    # 1,500 bytes and two frames, each written to the cache, and all the output there may be. No tier begins below that.
    assert hold["amount_micro"] == -(-1_532 * 5 // 4) + 1_000 + 500
    assert (settled["amount_micro"], settled["price"]) == (spent, "settings")
    assert run["tokens"] == 1_130


@pytest.mark.parametrize(
    ("usage", "model", "says"),
    [
        (None, "m", "no usage was told"),
        (TOKENS | {"completion_tokens": -1}, "m", "completion_tokens is -1"),
        (TOKENS | {"prompt_tokens_details": {"cached_tokens": 1_001}}, "m", "1001 tokens were read from a cache"),
        (TOKENS, "larger", "larger has answered, which is not m"),
    ],
)
async def test_what_cannot_be_right_is_charged_as_it_was_held_and_says_why(
    house: House, usage: Any, model: str, says: str
) -> None:
    async with answering(usage, model=model) as url:
        run, step, (hold, settled) = await asked(house, table(url, **CARD))
    assert settled["amount_micro"] == hold["amount_micro"] == run["spent_micro"] == step["cost_micro"]
    assert says in step["usage"]["fault"]
    assert not run["frozen"]


async def test_all_of_a_price_travels_where_functions_run_apart(house: House) -> None:
    told = {"micro_per_call": 7, "micro_per_million_seconds": 0}
    await set_price(house.database.admin, house.tenant, "tool:slow", told)
    both = {**ASK, "tools": TOOLS["tools"], "tasks": {**ASK["tasks"], **TOOLS["tasks"]}}
    await house.register({**both, "root": {"sequence": ["ask", "go"]}, "kind": "bt"})
    async with answering(TOKENS | DETAILS) as url, AsyncExitStack() as stack:
        changes: dict[str, Any] = {"models": table(url, **CARD), "handoff": False}
        hosts = [await stack.enter_async_context(house.host((name,), **changes)) for name in FUNCTIONS]
        api = next(host for host in hosts if "api" in host.functions)
        run = await house.settled(await house.submit(api, "ask"))
    assert (run["status"], run["spent_micro"]) == ("succeeded", 400 + 40 + 250 + 260 + 500 + 7), run["error"]
    assert await house.rows("select * from parked") == []


async def test_what_tenants_were_told_is_read_with_their_limits_and_for_no_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    plain = PostgresStore.prices

    async def counted(store: PostgresStore, tenants: Any) -> Any:
        reads.append(tenants)
        return await plain(store, tenants)

    monkeypatch.setattr(PostgresStore, "prices", counted)
    await house.register(ASK)
    async with answering(TOKENS) as url, house.host(models=table(url, **CARD)) as host:
        for _ in range(3):
            await house.ended(await house.submit(host, "ask"))
        assert len(reads) == 1
        host.limits_changed(house.tenant)
        await house.ended(await house.submit(host, "ask"))
        assert len(reads) == 2


async def test_a_model_of_ones_own_costs_by_the_second(house: House) -> None:
    async with answering(TOKENS, after_s=0.2) as url:
        run, _, (hold, _) = await asked(house, table(url, usd_per_second="0.001"))
    assert hold["amount_micro"] == 60_000
    assert 200 <= run["spent_micro"] < 5_000


async def test_bytes_per_token_lower_what_is_held(house: House) -> None:
    async with answering(TOKENS) as url:
        _, _, (hold, _) = await asked(house, table(url, input_usd_per_mtok=1, output_usd_per_mtok=0, bytes_per_token=4))
    assert hold["amount_micro"] == -(-1_500 * 100 // 320) + 32


async def test_a_tenant_that_was_told_a_price_pays_that(house: House) -> None:
    card = {"input_micro_per_mtok": 5_000_000, "output_micro_per_mtok": 0}
    await set_price(house.database.admin, house.tenant, "model:small", card)
    await set_price(house.database.admin, house.tenant, "model:m", card)
    async with answering(TOKENS) as url:
        run, _, (hold, settled) = await asked(house, table(url))  # whose price nobody else knows
    assert run["spent_micro"] == 5_000
    assert hold["price"] == settled["price"] == "tenant 1"
    assert run["state"]["models"] == {"small": ["far", "m", 5_000_000, 0, "tenant 1"]}


TOOLS = {
    "agentflow": "plan/v1", "name": "tools", "limits": {"steps": 4, "usd": 0.5},
    "tools": {"slow": {
        "kind": "python", "code": "import time\ndef run():\n    time.sleep(0.2)\n    return {}", "usd": 0.002,
        "usd_per_second": 0.001,
    }},
    "tasks": {"go": {"kind": "tool", "use": "slow", "timeout": "20s"}},
}  # fmt: skip


async def test_a_tool_costs_by_the_call_and_the_second_and_what_the_tenant_was_told(house: House) -> None:
    await house.register(TOOLS)
    async with house.host() as host:
        run = await house.ended(await house.submit(host, "tools"))
        assert run["status"] == "succeeded", run["error"]
        assert 2_200 <= run["spent_micro"] < 2_000 + 20_000
        told = {"micro_per_call": 7, "micro_per_million_seconds": 0}
        await set_price(house.database.admin, house.tenant, "tool:slow", told)
        host.limits_changed(house.tenant)
        after = await house.ended(await house.submit(host, "tools"))
    assert after["spent_micro"] == 7
    assert after["state"]["tools"] == {"slow": [7, 0, "tenant 1"]}
    ledger = await house.rows("select amount_micro, price from ledger where entry <> 'dispatch' order by at, entry")
    assert [(line["amount_micro"], line["price"]) for line in ledger] == [
        (22_000, "plan"), (run["spent_micro"], "plan"), (7, "tenant 1"), (7, "tenant 1"),
    ]  # fmt: skip
    await all_decided_again(house)
