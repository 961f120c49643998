"""The bridge: from JetStream to functions over HTTP, for platforms that call functions with requests.

One durable consumer per function, the same as by pull: a message is acknowledged when its function has
answered 2xx, that is, when what it led to is committed. Any number of bridges may run side by side; what functions do
not do when they are called, ``agentflow relay`` does. Public facts go to a sink, where there is one.
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
from agentflow.runtime.bearer import PUSH_KEY, bearer_keys
from agentflow.runtime.function import NAMES
from agentflow.runtime.parking import Parking
from agentflow.runtime.posts import MOST, Posts
from agentflow.runtime.receive import delivered, minding
from agentflow.runtime.serve import STARTING, not_found, until_signalled, with_probes
from agentflow.store.postgres import PostgresStore
from agentflow.wire.streams import MAX_ACK_PENDING, SINK, consumers_of

if TYPE_CHECKING:
    import httpx

    from agentflow.bus.parts import Delivered

log = structlog.get_logger(__name__)
CONNECT_S = 5.0
SINK_AT_ONCE = 64
AT_ONCE = 4  # requests to a function that takes batches; what comes meanwhile goes with the next


def function_urls(text: str) -> dict[str, str]:
    """Each function's address, from one URL with ``{function}`` in it or a JSON object by name.

    A function that the object leaves out is carried by pull, somewhere else.
    """
    names = [name for name in NAMES if name != "api"]
    path = "AGENTFLOW_FUNCTION_URLS"
    if text.lstrip().startswith("{") and not text.lstrip().startswith("{function}"):
        try:
            given = {str(name).replace("-", "_"): str(url) for name, url in json.loads(text).items()}
        except ValueError as fault:
            raise Rejected(f"is not JSON: {fault}", code="bad_setting", path=path) from None
        unknown = sorted(given.keys() - {*names, "api"})
        if unknown or not given:
            message = f"there is no function {unknown[0]}" if unknown else "names no function"
            raise Rejected(message, code="bad_setting", path=path, mend=f"there are: {', '.join(names)}")
        return {name: url for name, url in given.items() if name != "api"}
    if "{function}" not in text:
        mend = "e.g. http://{function}.agentflow.svc.cluster.local (Kubernetes names: _ becomes -)"
        raise Rejected("has no {function} in it", code="bad_setting", path=path, mend=mend)
    return {name: text.replace("{function}", name.replace("_", "-")) for name in names}


class Bridge:
    """Pulls for every function and POSTs; the same for public facts and the sink."""

    def __init__(
        self,
        settings: Settings,
        urls: Mapping[str, str],
        *,
        engine_dsn: str,
        nats_url: str,
    ) -> None:
        self._settings = settings
        self._urls = urls
        self._key = next(iter(bearer_keys(settings.push_key, PUSH_KEY)), b"").decode()
        self._store = PostgresStore(engine_dsn, connections=2)
        self._parking = Parking(self._store)
        copies, more = settings.nats_replicas, [SINK] if settings.sink else []
        self._bus = JetStream(nats_url, name="bridge", ca=settings.nats_ca, more=more, replicas=copies)
        self._client: httpx.AsyncClient | None = None
        self._state = STARTING

    async def start(self) -> None:
        import httpx

        await self._store.open()
        await self._bus.open()
        from agentflow.runtime.lines import Lines

        timeout = httpx.Timeout(None, connect=CONNECT_S)
        self._client = httpx.AsyncClient(transport=Lines(), timeout=timeout, trust_env=False)
        for name, url in self._urls.items():
            forward = self._parking.guard(name, self._forward(self._posts(name, url)))
            for consumer in consumers_of(name):
                await self._bus.pull(
                    consumer, forward, limit=min(MAX_ACK_PENDING[name], self._settings.calls)
                )
        if self._settings.sink:
            posts = Posts(self._client, self._settings.sink, at_once=SINK_AT_ONCE, most=1)
            forward = self._parking.guard(SINK.function, self._forward(posts))
            await self._bus.pull(SINK, forward, limit=SINK.max_ack_pending)
        self._state = "ready"

    async def stop(self) -> None:
        self._state = "stopping"
        await self._bus.close()
        await self._store.close()
        if self._client is not None:
            await self._client.aclose()

    def troubled(self, reason: str) -> None:
        self._state = f"{STARTING}: {reason}"

    def draining(self) -> None:
        self._state = "draining"

    def ready(self) -> tuple[bool, str]:
        if self._state != "ready":
            return False, self._state
        trouble = self._bus.trouble
        return (False, trouble) if trouble else (True, "ready")

    def _posts(self, name: str, url: str) -> Posts:
        """Pure functions decide upon many events in one transaction, and get them together; calls are dealt out one by
        one, so that they spread over all replicas."""
        assert self._client is not None
        alone = name in EFFECTS
        at_once = self._settings.calls if alone else AT_ONCE
        return Posts(self._client, url, at_once=at_once, most=1 if alone else MOST, key=self._key)

    def _forward(self, posts: Posts) -> Any:
        async def work(msg: Delivered) -> None:
            await minding(msg, posts.post(delivered(msg), len(msg.data)))

        return work


async def bridge(settings: Settings) -> None:
    """Carry the bridge until SIGTERM."""
    carried = Bridge(
        settings,
        function_urls(settings.function_urls),
        engine_dsn=settings.dsn("agentflow_engine"),
        nats_url=settings.bus(),
    )
    await until_signalled(carried, with_probes(not_found, carried, settings), settings)
