"""Push as Knative does it: our images as the rendered manifests have them, with pods that come and go under load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from house import eventually
from infra.manifests import kustomize

from .cluster import Cluster, cluster
from .conftest import SERVERS, TAG, has_image

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("deploy")]
ASK = {
    "agentflow": "plan/v1",
    "name": "ask",
    "limits": {"steps": 12, "usd": 0.01},
    "input": {"who": "string"},
    "output": {"text": "text", "n": "n"},
    "vars": {"n": "int", "text": "string"},
    "tools": {"count": {"kind": "python", "code": "def run(who): return {'n': len(who)}"}},
    "tasks": {
        "count": {
            "kind": "tool", "use": "count", "in": {"who": "who"}, "out": {"n": "int"}, "timeout": "60s",
            "retry": {"max": 5, "backoff": "200ms"},
        },
        "ask": {"kind": "llm", "use": "small", "in": {"who": "who"}, "prompt": "Ask {who}.", "max_tokens": 20},
    },
    "root": {"sequence": [
        {"task": "count", "set": {"n": "result.n"}}, {"task": "ask", "set": {"text": "result.text"}},
    ]},
}  # fmt: skip
COST_MICRO = 10  # ten tokens at a dollar a million
MOST_OPEN = 10  # runs
AGAIN = (429, 502, 503, 504)


class Load:
    """Runs, a few at a time, for as long as it goes on; each has a name that the far side hears."""

    def __init__(self, api: httpx.AsyncClient, asked: Collection[str]) -> None:
        self._api = api
        self._asked = asked  # of models
        self._going = True
        self.runs: dict[str, str] = {}  # id by name
        self._tasks = [asyncio.create_task(self._go()) for _ in range(4)]

    async def end(self) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)

    async def more(self, count: int = 5) -> None:
        """Return when models were asked by so many more."""
        until = len(self._asked) + count
        await eventually(lambda: len(self._asked) >= until or any(task.done() for task in self._tasks), within_s=60)

    async def _go(self) -> None:
        while self._going:
            name = str(uuid4())
            body = {"workflow": "ask", "input": {"who": name}}
            # The api's pods come and go, too: who gets no answer asks again, with the same key.
            while (answer := await self._answer(name, body)) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            assert answer.status_code in (200, 202), answer.text
            self.runs[name] = answer.json()["id"]
            while self._going and len(self.runs) - len(self._asked) > MOST_OPEN:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def _answer(self, name: str, body: Any) -> httpx.Response | None:
        try:
            answer = await self._api.post("/v1/runs", json=body, headers={"idempotency-key": name})
        except httpx.TransportError:
            return None  # its pod was lost in the midst of it
        return None if answer.status_code in AGAIN else answer


async def test_revisions_come_and_go_under_load(
    images: dict[str, str], require: Callable[[object, str], None], tmp_path: Path
) -> None:
    assert images
    require(kustomize(), "kustomize: infra/from-trixie.sh kustomize")
    require(os.geteuid() == 0, "root, who may listen on port 80 and give files to others")
    for image in SERVERS:
        require(has_image(image), f"no image {image}: infra/docker/stand-ins.sh makes a stand-in")
    async with cluster(tmp_path, TAG) as running, running.api() as api:
        made = await api.post("/v1/workflows", json=ASK)
        assert made.status_code == 201, made.text
        load = Load(api, running.far.asked)
        everyone = list(running.revisions.values())
        try:
            await load.more()  # from nothing: each function's first event starts it
            await asyncio.gather(*(each.scale(2) for each in everyone))
            await load.more()
            await asyncio.gather(*(each.evict(each.backends[0]) for each in everyone))
            await asyncio.gather(*(each.scale(0) for each in everyone))
            await load.more()  # from nothing again
            lost = await _lose(running)
            await load.more()
        finally:
            await load.end()
        ended = await _ended(running, load)
        assert set(ended.values()) == {"succeeded"}, ended
        await _counted(running, load, lost)
        await eventually(lambda: _empty(running), within_s=30)
        await asyncio.gather(*(each.scale(0) for each in everyone))
        _seen(running)


async def _lose(running: Cluster) -> int:
    """A pod of each function goes without a word, and so does the bridge; how many calls of models may have been made
    in vain."""
    model = running.revisions["invoke-llm"]
    await asyncio.gather(*(each.scale(1) for each in running.revisions.values()))
    await eventually(lambda: any(backend.at_work for backend in model.backends))
    (lost, *_) = await asyncio.gather(
        model.lose(max(model.backends, key=lambda backend: backend.at_work)),
        *(each.lose(each.backends[0]) for name, each in running.revisions.items() if name != "invoke-llm"),
        running.deployments["bridge"].kill(),
    )
    again = running.pod("bridge")
    await asyncio.gather(again.start(), *(each.scale(1) for each in running.revisions.values()))
    running.deployments["bridge"] = again
    return lost


async def _ended(running: Cluster, load: Load) -> dict[str, str]:
    async def over() -> dict[str, str] | None:
        rows = await _rows(running, "select run_id::text, status, finished_at from agentflow.runs")
        assert {run for run, *_ in rows} == set(load.runs.values())
        return {run: status for run, status, _ in rows} if all(at for *_, at in rows) else None

    found: dict[str, str] = await eventually(over, within_s=60)
    return found


async def _counted(running: Cluster, load: Load, lost: int) -> None:
    """Once each, at the far side and in the books; twice only what a lost pod was at."""
    asked = running.far.asked
    assert set(asked) == {f"Ask {name}." for name in load.runs}
    again = sum(asked.values()) - len(asked)
    assert again <= lost, f"{again} calls were made again, {lost} pods' were lost"
    rows = await _rows(running, "select spent_micro, held_micro from agentflow.runs")
    assert {held for _, held in rows} == {0}
    assert sum(spent != COST_MICRO for spent, _ in rows) <= lost
    assert await _rows(running, "select reason from agentflow.parked") == []
    accepted = "select run_id, step from agentflow.steps where status = 'succeeded' group by 1, 2 having count(*) > 1"
    assert await _rows(running, accepted) == []
    assert await _rows(running, "select 1 from agentflow.outbox where consumer <> 'facts'") == []


async def _empty(running: Cluster) -> bool:
    """Whether JetStream has handed out everything, and everything was acknowledged."""
    async with httpx.AsyncClient(trust_env=False) as client:
        told = (await client.get(f"http://{running.nats}:8222/jsz?consumers=true&config=true&accounts=true")).json()
    streams = [stream for account in told["account_details"] for stream in account.get("stream_detail", ())]
    left = {each["name"]: each["state"]["messages"] for each in streams if each["name"] != "AGENTFLOW_FACTS"}
    assert len(left) >= 2
    consumers = [consumer for stream in streams for consumer in stream.get("consumer_detail", ())]
    return not any(left.values()) and not any(c["num_pending"] + c["num_ack_pending"] for c in consumers)


def _seen(running: Cluster) -> None:
    """What was to happen has happened: else the above says little."""
    for name, each in running.revisions.items():
        concurrency = running.spec(name).concurrency
        assert each.buffered and len(each.started) >= 4 and not each.backends, name
        assert not concurrency or each.most <= concurrency, name
        assert each.answers[200] + each.answers[202] + each.answers[204] > 4, name
        assert not each.answers.keys() & {400, 404, 422, 500}, (name, each.answers)


async def _rows(running: Cluster, query: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(running.administrator) as conn:
        return await (await conn.execute(query)).fetchall()  # type: ignore[arg-type]
