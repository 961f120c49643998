"""The bridge: from JetStream to functions over HTTP, for platforms that call functions with requests.

One durable consumer per function, the same as by pull: a message is acknowledged when its function has
answered 2xx, that is, when what it led to is committed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import structlog

from agentflow.bus.jetstream import JetStream
from agentflow.config import Settings
from agentflow.errors import Rejected, RetryLater
from agentflow.runtime.function import NAMES
from agentflow.runtime.parking import Parking
from agentflow.runtime.publisher import Publisher
from agentflow.runtime.receive import minding
from agentflow.runtime.relay import Relay
from agentflow.runtime.serve import not_found, until_signalled, with_probes
from agentflow.store.changes import Twin
from agentflow.store.postgres import PostgresStore
from agentflow.wire.catalogue import tenant_of_subject
from agentflow.wire.http import to_http
from agentflow.wire.nats import from_nats
from agentflow.wire.streams import MAX_ACK_PENDING, consumers_of

if TYPE_CHECKING:
    import httpx

    from agentflow.bus.parts import Delivered

log = structlog.get_logger(__name__)
CONNECT_S = 5.0
LATER = frozenset({429, 502, 503, 504})
NEVER = frozenset({400, 404, 413, 415, 422})


def function_urls(text: str) -> dict[str, str]:
    """Each function's address, from one URL with ``{function}`` in it or a JSON object by name."""
    names = [name for name in NAMES if name != "api"]
    if text.lstrip().startswith("{") and not text.lstrip().startswith("{function}"):
        given = json.loads(text)
        missing = [name for name in names if name not in given]
        if missing:
            raise Rejected(f"names no URL for {', '.join(missing)}", path="AGENTFLOW_FUNCTION_URLS")
        return {name: str(given[name]) for name in names}
    if "{function}" not in text:
        mend = "e.g. http://{function}.agentflow.svc.cluster.local (Kubernetes names: _ becomes -)"
        raise Rejected(
            "has no {function} in it", code="bad_setting", path="AGENTFLOW_FUNCTION_URLS", mend=mend
        )
    return {name: text.replace("{function}", name.replace("_", "-")) for name in names}


class Bridge:
    """Pulls for every function and POSTs; carries the relay too, unless told not to."""

    def __init__(
        self,
        settings: Settings,
        urls: Mapping[str, str],
        *,
        engine_dsn: str,
        relay_dsn: str | None,
        nats_url: str,
    ) -> None:
        self._settings = settings
        self._urls = urls
        self._store = PostgresStore(engine_dsn, connections=2)
        self._parking = Parking(self._store)
        self._bus = JetStream(nats_url, name="bridge", on_wipe=self._resend_all)
        self._publisher = Publisher(self._bus, self._forget)
        self._relay = Relay(relay_dsn, self._publisher.send) if relay_dsn else None
        self._client: httpx.AsyncClient | None = None
        self._state = "starting"

    async def start(self) -> None:
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=512)
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        self._client = httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False)
        await self._store.open()
        await self._bus.open()
        await self._bus.on_hint(self._hinted)
        for name, url in self._urls.items():
            for consumer in consumers_of(name):
                handler = self._parking.guard(name, self._forward(url))
                await self._bus.pull(
                    consumer, handler, limit=min(MAX_ACK_PENDING[name], self._settings.calls)
                )
        if self._relay is not None:
            await self._relay.start()
        self._state = "ready"

    async def stop(self) -> None:
        self._state = "stopping"
        if self._relay is not None:
            await self._relay.stop()
        await self._bus.close()
        await self._store.close()
        if self._client is not None:
            await self._client.aclose()

    def draining(self) -> None:
        self._state = "draining"

    def ready(self) -> tuple[bool, str]:
        if self._state != "ready":
            return False, self._state
        return (True, "ready") if self._bus.connected else (False, "NATS is not connected")

    def _forward(self, url: str) -> Any:
        async def work(msg: Delivered) -> None:
            event = from_nats(msg.headers, msg.data, tenant_of_subject(msg.subject))
            headers, body = to_http(event, "binary")
            await minding(msg, self._post(url, headers, body))

        return work

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        import httpx

        assert self._client is not None
        try:
            answer = await self._client.post(url, headers=dict(headers), content=body)
        except httpx.HTTPError as fault:
            raise RetryLater(f"{url}: {fault or type(fault).__name__}", after=0.5) from fault
        if answer.is_success:
            return
        reason = answer.text[:1000].strip()
        if answer.status_code in LATER:
            after = answer.headers.get("retry-after", "1")
            raise RetryLater(reason, after=float(after) if after.isdigit() else 1.0)
        if answer.status_code in NEVER:
            raise Rejected(reason, code=f"http_{answer.status_code}")
        raise RuntimeError(f"{answer.status_code}: {reason}")

    def _forget(self, twin: Twin) -> None:
        """The stream has a public fact that was sent again."""
        self._publisher.background(self._store.consume([twin]))

    def _hinted(self, hint: dict[str, Any]) -> None:
        if self._relay is not None and hint.get("timer_ms") is not None:
            self._relay.timer_set(hint["timer_ms"])

    async def _resend_all(self) -> None:
        if self._relay is not None:
            self._relay.resend_all()


async def bridge(settings: Settings) -> None:
    """Carry the bridge and the relay until SIGTERM."""
    carried = Bridge(
        settings,
        function_urls(settings.function_urls),
        engine_dsn=settings.dsn("agentflow_engine"),
        relay_dsn=settings.dsn("agentflow_relay"),
        nats_url=settings.nats_url,
    )
    await until_signalled(carried, with_probes(not_found, carried), settings)
