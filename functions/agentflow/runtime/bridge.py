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
from agentflow.errors import Rejected
from agentflow.runtime.batch import EFFECTS
from agentflow.runtime.function import NAMES
from agentflow.runtime.parking import Parking
from agentflow.runtime.posts import MOST, Posts
from agentflow.runtime.publisher import Publisher
from agentflow.runtime.receive import minding
from agentflow.runtime.relay import Relay
from agentflow.runtime.serve import not_found, until_signalled, with_probes
from agentflow.store.changes import Twin
from agentflow.store.postgres import PostgresStore
from agentflow.wire.catalogue import tenant_of_subject
from agentflow.wire.nats import from_nats
from agentflow.wire.streams import MAX_ACK_PENDING, consumers_of

if TYPE_CHECKING:
    import httpx

    from agentflow.bus.parts import Delivered

log = structlog.get_logger(__name__)
CONNECT_S = 5.0
AT_ONCE = 4  # requests to a function that takes batches; what comes meanwhile goes with the next


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
            forward = self._parking.guard(name, self._forward(name, url))
            for consumer in consumers_of(name):
                await self._bus.pull(
                    consumer, forward, limit=min(MAX_ACK_PENDING[name], self._settings.calls)
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

    def _forward(self, name: str, url: str) -> Any:
        """Pure functions decide upon many events in one transaction, and get them together; calls are dealt out one by
        one, so that they spread over all replicas."""
        assert self._client is not None
        alone = name in EFFECTS
        posts = Posts(self._client, url, at_once=self._settings.calls if alone else AT_ONCE, most=1 if alone else MOST)

        async def work(msg: Delivered) -> None:
            event = from_nats(msg.headers, msg.data, tenant_of_subject(msg.subject))
            await minding(msg, posts.post(event, len(msg.data)))

        return work

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
