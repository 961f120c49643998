"""Keys to a host's doors: what a key may be, who is let in, who may look at metrics, what is said of who is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.observe import metrics
from agentflow.runtime import bearer
from agentflow.runtime.bearer import Lock, bearer_keys
from agentflow.runtime.serve import http_server, not_found, with_probes

NEW, OLD = "n" * 32, "o" * 40


class Ready:
    """A host that is."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def troubled(self, reason: str) -> None: ...

    def draining(self) -> None: ...

    def ready(self) -> tuple[bool, str]:
        return True, "ready"


@asynccontextmanager
async def probes(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = with_probes(not_found, Ready(), settings)
    async with (
        http_server(app, "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        yield client


def sent(key: str, scheme: str = "Bearer") -> dict[bytes, bytes]:
    return {b"authorization": f"{scheme} {key}".encode()}


@pytest.mark.parametrize("text", ["short", f"{NEW},short", "k" * 31 + " " + "k", "ü" * 32, "k" * 31 + "\n" + "k"])
def test_a_key_that_can_be_guessed_or_fits_no_header_is_refused(text: str) -> None:
    with pytest.raises(Rejected, match=r"AGENTFLOW_PUSH_KEY: key \d has to be 32 or more") as caught:
        bearer_keys(text, "AGENTFLOW_PUSH_KEY")
    assert text not in str(caught.value)


def test_keys_are_taken_in_their_order_and_without_what_editors_leave() -> None:
    assert bearer_keys(f" {NEW} ,{OLD}\n", "X") == [NEW.encode(), OLD.encode()]
    assert bearer_keys(" ", "X") == []


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({}, "stranger"), (sent(NEW), "ours"), (sent(OLD), "ours"), (sent(NEW, "bearer"), "ours"),
        (sent(NEW + "x"), "stranger"), (sent(NEW[1:]), "stranger"), (sent(f"{NEW},{OLD}"), "stranger"),
        (sent(NEW, "Basic"), "stranger"), (sent(""), "stranger"), ({b"authorization": NEW.encode()}, "stranger"),
    ],
)  # fmt: skip
def test_who_has_one_of_the_keys_is_let_in(headers: dict[bytes, bytes], who: str) -> None:
    everywhere = Settings(push_key=f"{NEW},{OLD}", http_host="0.0.0.0")
    assert Lock("plan", everywhere).caller(headers) == who
    # A door that stands open is so for who sends no key; one that is wrong may be the bridge's.
    stands_open = Lock("plan", Settings(push_key=f"{NEW},{OLD}", push_open=True))
    assert stands_open.caller(headers) == ("outsider" if not headers else who)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_this_machine_no_key_is_needed(host: str) -> None:
    assert Lock("plan", Settings(http_host=host)).caller({}) == "ours"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "", "plan.internal"])
def test_anywhere_else_one_is_unless_it_is_said_that_none_is(host: str) -> None:
    with pytest.raises(Rejected, match=r"AGENTFLOW_PUSH_KEY: there is no key .*AGENTFLOW_PUSH_OPEN=1"):
        Lock("plan", Settings(http_host=host))
    assert Lock("plan", Settings(http_host=host, push_open=True)).caller({}) == "ours"


async def test_what_is_refused_is_counted_and_told_of_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(bearer.time, "monotonic", lambda: now)
    lock = Lock("plan", Settings(push_key=NEW))
    before = metrics.registry.get_sample_value("agentflow_push_refused_total", {"function": "plan"}) or 0
    answers: list[Any] = []

    async def send(part: Any) -> None:
        answers.append(part)

    with capture_logs() as lines:
        for _ in range(5):
            await lock.refuse(send)
        now += bearer.REMIND_S
        await lock.refuse(send)
    assert [line["count"] for line in lines] == [1, 5]
    assert metrics.registry.get_sample_value("agentflow_push_refused_total", {"function": "plan"}) == before + 6
    assert {part["status"] for part in answers if "status" in part} == {401}


@pytest.mark.parametrize("mark", [{"x-forwarded-for": "10.1.2.3"}, {"forwarded": "for=10.1.2.3"}])
async def test_metrics_are_not_for_who_comes_through_a_proxy(mark: dict[str, str]) -> None:
    async with probes(Settings()) as client:
        refused = await client.get("/metrics", headers=mark)
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
        assert refused.json()["errors"][0]["path"] == "AGENTFLOW_METRICS_KEY"
        assert "agentflow_runs" not in refused.text
        assert "agentflow_runs" in (await client.get("/metrics")).text
        for probe in ("/healthz", "/readyz", "/_/health", "/_/ready"):
            assert (await client.get(probe, headers=mark)).status_code == 200


async def test_metrics_ask_for_their_key_where_there_is_one() -> None:
    async with probes(Settings(metrics_key=NEW)) as client:
        for headers in ({}, {"authorization": f"Bearer {OLD}"}):
            assert (await client.get("/metrics", headers=headers)).status_code == 401
        proxied = {"authorization": f"Bearer {NEW}", "x-forwarded-for": "10.1.2.3"}
        assert "agentflow_runs" in (await client.get("/metrics", headers=proxied)).text
        assert (await client.get("/readyz")).status_code == 200
