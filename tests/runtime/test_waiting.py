"""What waits in JetStream is seen at /metrics of who carries the relay, as it is when somebody looks."""

from __future__ import annotations

import httpx
from house import House, eventually
from prometheus_client.parser import text_string_to_metric_families

from agentflow.observe import metrics
from agentflow.runtime.function import NAMES


async def waiting() -> dict[str, float]:
    """Messages that wait, by function, as Prometheus reads them."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(metrics.endpoint), base_url="http://host") as client:
        text = (await client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {each.labels["function"]: each.value for each in samples if each.name == "agentflow_waiting_messages"}


async def test_messages_for_a_function_that_is_away_are_seen_until_it_has_taken_them(house: House) -> None:
    async with house.host(("api",)) as api:
        for _ in range(3):
            await house.submit(api, "echo")

        async def seen() -> bool:
            return (await waiting()).get("plan") == 3

        await eventually(seen)
        found = await waiting()
        assert found == {"plan": 3} | dict.fromkeys(set(NAMES) - {"plan", "api"}, 0)
        async with house.host(("plan",), relay=False):

            async def taken() -> bool:
                return (await waiting())["plan"] == 0

            await eventually(taken)
    assert await waiting() == {}  # nobody is there to know


async def test_while_nats_is_away_nothing_is_told(house: House) -> None:
    async with house.host(("api",)) as api:
        assert (await waiting())["plan"] == 0
        await api._bus.close()
        assert await waiting() == {}
