"""JetStream: publish with acknowledgements, pull with backpressure, hints without guarantees.

Nothing here is durable truth: what is published has a twin in Postgres, and what is lost is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import nats.errors
import nats.js.errors
import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from agentflow.bus.making import make
from agentflow.bus.parts import Again, Delivered, parts
from agentflow.bus.readiness import unready
from agentflow.bus.servers import servers
from agentflow.errors import Rejected, RetryLater
from agentflow.wire.event import Event
from agentflow.wire.nats import message_id, to_nats, to_nats_batch
from agentflow.wire.streams import CONSUMERS, STREAMS, Consumer

if TYPE_CHECKING:
    import ssl

log = structlog.get_logger(__name__)
HINTS = "agentflow.hints"
PULL_EXPIRES_S = 30
CLOSE_S = 3.0
WIDTH_OF = 16  # messages that the average of their events is taken of
Handler = Callable[[Delivered], Awaitable[None]]


class JetStream:
    """One connection to NATS, to whichever of its servers is there (servers.py). ``on_wipe`` is awaited when streams
    had to be made anew after a reconnect; those that are made here have so many ``replicas``. ``ca`` is a file of
    certificates, one of which has to have signed the server's; ``more`` are consumers beside the catalogue's."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "agentflow",
        on_wipe: Callable[[], Awaitable[None]] | None = None,
        ca: str = "",
        more: Sequence[Consumer] = (),
        replicas: int = 1,
    ):
        self._url = url
        self._servers = servers(url)
        self._replicas = replicas
        self._consumers = (*CONSUMERS, *more)
        self._ca = ca
        self._name = name
        self._on_wipe = on_wipe
        self._nc = Client()
        self._js: JetStreamContext | None = None
        self._pulls: list[Pull] = []
        self._repair: asyncio.Task[None] | None = None
        self._births: dict[str, Any] = {}
        self._heard = ""  # what the client last complained of
        self._said: set[str] = set()  # and what of it was logged since the connection was lost
        self._whole = False  # whether all streams and consumers are known to be there

    @property
    def connected(self) -> bool:
        return self._nc.is_connected

    @property
    def trouble(self) -> str:
        """What is in the way of a connection that was lost, in one line; empty while there is one."""
        if self.connected:
            return ""
        return str(unready(ConnectionError("connection lost"), self._url, self._heard))

    async def open(self, *, wait_s: float = 5.0) -> None:
        """Connect and make the streams and consumers of the catalogue. ``RetryLater`` when NATS stays away, or has
        streams that are not ours; may be called again after that."""
        self._nc = Client()
        self._heard = ""
        try:
            await asyncio.wait_for(self._connect(), wait_s)
            self._js = self._nc.jetstream(timeout=5)
            await self.ensure()
        except RetryLater:
            await self._leave()
            raise
        except (TimeoutError, OSError, nats.errors.Error, nats.js.errors.Error) as fault:
            await self._leave()
            raise unready(fault, self._url, self._heard) from fault

    async def _leave(self) -> None:
        """Give a connection up that was of no use."""
        self._js = None
        with contextlib.suppress(Exception):
            await self._nc.close()

    async def _connect(self) -> None:
        await self._nc.connect(
            **self._servers.options(),
            name=self._name,
            tls=self._trusting() if self._ca else None,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,  # type: ignore[arg-type]  # seconds; a float works
            connect_timeout=2,
            allow_reconnect=True,
            error_cb=self._on_error,
            reconnected_cb=self._on_reconnect,
            disconnected_cb=self._on_disconnect,
            pending_size=16 * 1024 * 1024,
            flush_timeout=5,
        )

    def _trusting(self) -> ssl.SSLContext:
        """TLS that trusts nobody but ``ca``."""
        import ssl

        try:
            return ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as fault:
            message = f"{self._ca}: {fault.strerror or fault}"
            mend = "name a file of certificates in PEM"
            raise Rejected(message, code="bad_setting", path="AGENTFLOW_NATS_CA", mend=mend) from None

    async def stop_pulling(self) -> None:
        """Take in no more messages and let those at hand be finished."""
        await asyncio.gather(*(pull.stop() for pull in self._pulls))

    async def close(self) -> None:
        if self._repair is not None:
            self._repair.cancel()
        await self.stop_pulling()
        if self._js is None:
            # Never connected: the client keeps trying in the background, and can't be closed in every state.
            with contextlib.suppress(Exception):
                await self._nc.close()
        elif self._nc.is_connected:
            await self._nc.drain()
        elif not self._nc.is_closed:
            # In the middle of a handshake that fails the client waits for an end that does not come.
            with contextlib.suppress(TimeoutError, OSError):
                await asyncio.wait_for(self._nc.close(), CLOSE_S)

    async def ensure(self) -> bool:
        """Make the streams and consumers that are missing or broken; returns whether a stream is not the one it was
        before."""
        assert self._js is not None
        self._whole = False
        births: dict[str, Any] = {}
        for stream in STREAMS:
            consumers = [consumer for consumer in self._consumers if consumer.stream == stream.name]
            try:
                births[stream.name] = await make(self._js, stream, consumers, self._replicas)
            except nats.js.errors.ServerError as fault:
                # Its files are damaged. What of it is ours is sent again from the outbox.
                log.warning("a stream is broken and made anew", stream=stream.name, reason=str(fault))
                await self._js.delete_stream(stream.name)
                births[stream.name] = await make(self._js, stream, consumers, self._replicas)
        # Whoever reconnects first makes the streams anew; every host has to notice that they are new.
        wiped = bool(self._births) and births != self._births
        self._births = births
        self._whole = True
        return wiped

    async def send(self, events: Sequence[Event], subject: str, *, tries: int = 0) -> asyncio.Future[Any]:
        """Publish in one message; the future ends when the stream has acknowledged.

        The first event's id dedupes within two minutes. What is sent again (``tries``) has another id: the stream may
        remember the first and yet have dropped it.
        """
        # A stream without its consumers takes a message, finds nobody interested and forgets it.
        if self._js is None or not self._nc.is_connected or not self._whole:
            raise RetryLater("NATS is not connected")
        if len(events) == 1:
            headers, payload = to_nats(events[0], "structured")
            headers["Nats-Msg-Id"] = f"{message_id(events[0])}{f'|{tries}' if tries else ''}"
        else:
            headers, payload = to_nats_batch(events)
            headers["Nats-Msg-Id"] = f"{message_id(events[0])}+{len(events)}"
        try:
            return await self._js.publish_async(subject, payload, headers=headers, wait_stall=5)
        except (nats.errors.Error, nats.js.errors.Error, OSError) as fault:
            raise RetryLater(f"NATS: {fault or type(fault).__name__}") from fault

    async def republish(self, subject: str, headers: Mapping[str, str], payload: bytes) -> None:
        """Put a message back as it was, under no id: it is not to be taken for the one that was parked."""
        if self._js is None:
            raise RetryLater("NATS is not connected")
        kept = {name: text for name, text in headers.items() if not name.startswith("Nats-")}
        try:
            await self._js.publish(subject, payload, headers=kept or None, timeout=5)
        except (nats.errors.Error, nats.js.errors.Error, OSError) as fault:
            raise RetryLater(f"NATS: {fault or type(fault).__name__}") from fault

    async def hint(self, content: dict[str, Any]) -> None:
        """Tell other hosts something they may as well not hear."""
        if self._nc.is_connected:
            await self._nc.publish(HINTS, orjson.dumps(content))

    async def on_hint(self, heard: Callable[[dict[str, Any]], None]) -> None:
        async def receive(msg: Msg) -> None:
            heard(orjson.loads(msg.data))

        await self._nc.subscribe(HINTS, cb=receive)

    async def pull(self, consumer: Consumer, handler: Handler, *, limit: int) -> Pull:
        """Have messages of a durable consumer handled, at most ``limit`` at a time."""
        pull = Pull(self._nc, consumer, handler, limit, self.republish)
        await pull.start()
        self._pulls.append(pull)
        return pull

    async def waiting(self) -> dict[str, int]:
        """How many messages were not handed out yet, by function. ``RetryLater`` where NATS does not say."""
        if self._js is None or not self._nc.is_connected:
            raise RetryLater("NATS is not connected")
        try:
            asked = (self._js.consumer_info(each.stream, each.function) for each in self._consumers)
            infos = await asyncio.gather(*asked)
        except (nats.errors.Error, nats.js.errors.Error, OSError) as fault:
            raise RetryLater(f"NATS: {fault or type(fault).__name__}") from fault
        found = dict.fromkeys((each.function for each in self._consumers), 0)
        for each, info in zip(self._consumers, infos, strict=True):
            found[each.function] += info.num_pending or 0
        return found

    # -- when NATS comes and goes --------------------------------------------------------------------

    async def _on_error(self, fault: Exception) -> None:
        heard = str(fault) or type(fault).__name__
        if self._js is not None and not self.connected and heard not in self._said:
            self._said.add(heard)
            log.warning("nats stays away", reason=str(unready(fault, self._url)))
        self._heard = heard
        log.debug("nats", reason=heard)
        if self._ca and not self.connected:  # who signs servers may have changed, and the file with it
            with contextlib.suppress(Rejected):
                self._nc.options["tls"] = self._trusting()

    async def _on_disconnect(self) -> None:
        self._whole = False
        if not self._nc.is_closed and not self._nc.is_draining:
            log.warning("nats disconnected")

    async def _on_reconnect(self) -> None:
        log.info("nats reconnected")
        self._heard = ""
        self._said.clear()
        if self._repair is not None:
            self._repair.cancel()
        self._repair = asyncio.create_task(self._restore(), name="nats-restore")

    async def _restore(self) -> None:
        """After a reconnect the server may be another one, or an empty one."""
        while True:
            try:
                wiped = await self.ensure()
                break
            except (nats.errors.Error, nats.js.errors.Error, OSError, RetryLater) as fault:
                log.warning("jetstream is not ready", reason=str(fault) or type(fault).__name__)
                await asyncio.sleep(0.2)
        for pull in self._pulls:
            await pull.ask_again()
        if wiped:
            log.warning("jetstream was empty: streams made anew, everything open is sent again")
            if self._on_wipe is not None:
                await self._on_wipe()


def sent_again(msg: Delivered) -> bool:
    """Whether a message is, or may be, a repetition: delivered before, or published again by the relay."""
    if (msg.metadata.num_delivered or 1) > 1:
        return True
    return (msg.headers or {}).get("Nats-Msg-Id", "").count("|") > 2


class Pull:
    """A standing pull request on one durable consumer: asks for as much as may still be taken in."""

    def __init__(self, nc: Client, consumer: Consumer, handler: Handler, limit: int, again: Again) -> None:
        self._nc = nc
        self._again = again
        self._consumer = consumer
        self._handler = handler
        self._limit = limit
        self._asked = 0  # messages
        self._taken = 0  # events in them
        self._width = 1.0  # events in a message, on average of late
        self._sub: Any = None
        self._inbox = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchdog: asyncio.Task[None] | None = None
        self._heard = 0.0
        self._stopping = False

    async def start(self) -> None:
        self._inbox = self._nc.new_inbox()
        self._sub = await self._nc.subscribe(
            self._inbox, cb=self._receive, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        await self._ask()
        self._watchdog = asyncio.create_task(self._watch(), name=f"pull-{self._consumer.function}")

    async def stop(self) -> None:
        """Ask for nothing more and let what was taken be finished (its acks included)."""
        self._stopping = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=30)

    async def ask_again(self) -> None:
        """Forget what was asked: the server that knew of it is gone."""
        self._asked = 0
        await self._ask()

    async def _ask(self) -> None:
        most = self._limit / self._width
        room = int((self._limit - self._taken) / self._width) - self._asked
        if not self._asked and self._taken < self._limit:
            room = max(room, 1)
        if self._stopping or room <= 0 or (self._asked and room < most // 4):
            return
        self._asked += room
        self._heard = asyncio.get_running_loop().time()
        request = {"batch": room, "expires": PULL_EXPIRES_S * 1_000_000_000}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer.stream}.{self._consumer.function}"
        try:
            await self._nc.publish(subject, orjson.dumps(request), reply=self._inbox)
        except (nats.errors.Error, OSError):
            self._asked = 0  # the watchdog or the reconnect asks again

    async def _receive(self, msg: Msg) -> None:
        self._heard = asyncio.get_running_loop().time()
        if not msg.reply.startswith("$JS.ACK."):
            # A status: this request is over (408 expired, 404/409 nothing or gone). Its remainder is not coming.
            self._asked = 0
            if not (msg.headers or {}).get("Status", "").startswith("4"):
                return
            if (msg.headers or {}).get("Status") != "408":
                await asyncio.sleep(0.1)
            await self._ask()
            return
        self._asked = max(0, self._asked - 1)
        each = parts(msg, self._again)
        self._taken += len(each)
        self._width += (len(each) - self._width) / WIDTH_OF
        for part in each:
            task = asyncio.create_task(self._handle(part))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _handle(self, part: Delivered) -> None:
        try:
            await self._handler(part)
        except Exception:
            log.exception("message handler failed", consumer=self._consumer.function)
        finally:
            self._taken -= 1
            await self._ask()

    async def _watch(self) -> None:
        """A request whose answer got lost is repeated."""
        while True:
            await asyncio.sleep(PULL_EXPIRES_S / 2)
            if asyncio.get_running_loop().time() - self._heard > PULL_EXPIRES_S + 5:
                await self.ask_again()
