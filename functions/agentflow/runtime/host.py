"""A host: some functions, the doors they are reached by, and the one reactor they share.

The composition root of every process: embedded (all functions), worker pods (some, by pull) and function
containers (one, by push). What it does not carry is reached over the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from agentflow.bus.jetstream import JetStream
from agentflow.config import Settings
from agentflow.control.ports import ParkedMessage
from agentflow.core.message import Message
from agentflow.core.money import Count
from agentflow.core.performed import Effect
from agentflow.core.run import Run
from agentflow.errors import Conflict, Rejected, RetryLater
from agentflow.runtime import function
from agentflow.runtime.batch import EFFECTS, Item, Leaving
from agentflow.runtime.gate import Gatekeeper
from agentflow.runtime.gate_notes import News, news_of, read, written
from agentflow.runtime.gating import Gating
from agentflow.runtime.hints import Hint, Hints
from agentflow.runtime.parking import Parking, restored
from agentflow.runtime.performer import Performer
from agentflow.runtime.plans import Plans
from agentflow.runtime.pricing import Pricing
from agentflow.runtime.publisher import Publisher
from agentflow.runtime.reactor import Reactor
from agentflow.runtime.receive import Receiver, once
from agentflow.runtime.relay import Relay
from agentflow.runtime.sealer import Sealer
from agentflow.runtime.serve import STARTING, Asgi, not_found, with_probes
from agentflow.runtime.waiting import Waiting
from agentflow.runtime.watch import Watch, Watchers
from agentflow.store.chain import ChainKeys
from agentflow.store.changes import Changes, dump
from agentflow.store.postgres import PostgresStore
from agentflow.wire.event import Event
from agentflow.wire.streams import consumers_of

# What one function needs and another does not is imported where it is needed: a cold start is mostly imports.
if TYPE_CHECKING:
    from agentflow.models.catalogue import ModelCatalogue
    from agentflow.runtime.retention import Keeper
    from agentflow.store.control import ControlStore

log = structlog.get_logger(__name__)
CONGESTED = 1000
PRICING = frozenset({"api", "plan"})  # the functions that look models and their prices up
PURE_LIMIT = 2048  # messages of a pure function taken in and not yet committed


class Host:
    """Carries ``names`` in this process; with ``relay`` also the relay. Start once, stop once."""

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        *,
        engine_dsn: str,
        nats_url: str,
        api_dsn: str | None = None,
        relay_dsn: str | None = None,
        keeper_dsn: str | None = None,
        pull: bool = True,
    ) -> None:
        self.settings = settings
        self.functions = {name: function.load(name).function for name in names}
        self._keys = ChainKeys(settings.audit_key)
        self.store = PostgresStore(engine_dsn, self._keys)
        self.watchers = Watchers()
        self._models = catalogue(settings) if PRICING.intersection(names) else None
        self._pricing = Pricing(self._models, self.store.prices, counting(settings, names))
        self._gating = Gating(
            self.store.limits,
            sends_requests="api" in names and "plan" not in names,
            also=self._pricing.learn if "plan" in names else None,
        )
        name, copies, ca = "+".join(names) or "relay", settings.nats_replicas, settings.nats_ca
        self._bus = JetStream(nats_url, name=name, on_wipe=self._resend_all, ca=ca, replicas=copies)
        # Memory serves a host that both performs and decides: elsewhere others write in between. There, what a commit
        # costs is two round trips, and one writer that makes larger batches does more than two.
        remember = settings.remember if "dispatch" in names and EFFECTS.intersection(names) else 0
        self._reactor = Reactor(
            {name: f.decide for name, f in self.functions.items()},
            self.store,
            Plans(),
            self._pricing,
            self,
            batch=settings.batch,
            writers=2 if remember else 1,
            remember=remember,
            gating=self._gating,
        )
        self._publisher = Publisher(self._bus, self._reactor.acknowledged)
        self._hints = Hints(self._bus, self._hinted, self._publisher.background)
        self._parking = Parking(self.store)
        self._receivers: dict[str, Receiver] = {}
        self._control = control(api_dsn) if api_dsn else None
        self._relay = Relay(relay_dsn, self.send, self._congested) if relay_dsn else None
        self._waiting = Waiting(self._bus) if relay_dsn else None
        self._gatekeeper = Gatekeeper(relay_dsn, self.send) if relay_dsn else None
        self._sealer = Sealer(relay_dsn, self._keys) if relay_dsn else None
        self._keeper = keeper(settings, keeper_dsn, engine_dsn) if keeper_dsn else None
        self._effects: dict[str, Effect] = {}
        self._performers: dict[str, Performer] = {}
        self._pull = pull
        self._state = STARTING

    async def start(self) -> None:
        """Connect, then take in work. ``RetryLater`` while Postgres, NATS or a sandbox is away or not as it should be:
        nothing has begun then, and it may be called again."""
        first = self._state == STARTING  # later tries have their reasons in it
        if first and self.settings.database_url and (known := self.settings.development_secrets()):
            log.warning("secrets for development, which everybody knows", settings=known)
        await self.store.open()
        if self._control is not None:
            await self._control.open()
        if self._relay is not None:
            await self._relay.open()
        for name, each in self.functions.items():
            if each.open_effect is not None and name not in self._effects:
                self._effects[name] = await each.open_effect(self.settings, self.store)
        await self._bus.open()
        self._reactor.start()
        for name in self.functions:
            if name in self._effects:
                self._performers[name] = Performer(
                    name, self._effects[name], self._reactor, self.store, limit=self.settings.calls
                )
            receiver = Receiver(name, self._reactor, self.store, self._performers.get(name))
            self._receivers[name] = receiver
            if name != "api":  # whose door takes requests, not events
                function.DOORS[name] = receiver.push
        await self._hints.open()
        if self._pull:
            for name, receiver in self._receivers.items():
                limit = self.settings.calls if name in EFFECTS else PURE_LIMIT
                for consumer in consumers_of(name):
                    await self._bus.pull(consumer, self._parking.guard(name, receiver.pull), limit=limit)
        if self._relay is not None:
            self._relay.start()
        if self._waiting is not None:
            self._waiting.start()
        if self._gatekeeper is not None:
            await self._gatekeeper.start()
        if self._sealer is not None:
            self._sealer.start()
        if self._keeper is not None:
            self._keeper.start()
        self._state = "ready"

    def troubled(self, reason: str) -> None:
        """Say on /readyz what a start waits for."""
        self._state = f"{STARTING}: {reason}"

    def draining(self) -> None:
        """Say on /readyz that no new work should come here."""
        self._state = "draining"

    async def stop(self) -> None:
        """Take in nothing more, finish what is at hand, leave."""
        self._state = "stopping"
        if self._keeper is not None:
            await self._keeper.stop()
        if self._sealer is not None:
            await self._sealer.stop()
        if self._gatekeeper is not None:
            await self._gatekeeper.stop()
        if self._waiting is not None:
            self._waiting.stop()
        if self._relay is not None:
            await self._relay.stop()
        await self._bus.stop_pulling()
        for performer in self._performers.values():
            await performer.close()
        for name in self._effects.keys() - self._performers.keys():  # of a start that came no further
            await self._effects[name].close()
        await self._reactor.stop()
        await self._publisher.close()
        await self._reactor.forget()
        await self._bus.close()
        if self._models is not None:
            await self._models.close()
        if self._control is not None:
            await self._control.close()
        await self.store.close()

    def ready(self) -> tuple[bool, str]:
        """Whether work can be taken in, and if not, what is missing."""
        if self._state != "ready":
            return False, self._state
        if trouble := self._bus.trouble:
            return False, trouble
        return True, "ready"

    # -- the reactor's outlet --------------------------------------------------------------------------

    def send(self, leaving: Sequence[Leaving]) -> None:
        """Give each message to whom it concerns: in this process, or over the bus."""
        away = [leave for leave in leaving if not (self.settings.handoff and self._hand_over(leave))]
        if self._relay is not None:
            self._relay.work_seen()
        if away:
            self._publisher.send(away)

    def _hand_over(self, leave: Leaving) -> bool:
        performer = self._performers.get(leave.consumer)
        if performer is not None:
            return performer.offer(leave.message)
        if leave.consumer in self.functions:
            self._reactor.offer(Item(leave.consumer, leave.message, leave.twin, once(leave.message)))
            return True
        return False

    def refused(self, item: Item, fault: Exception) -> None:
        """A message given over within this process was not handled: park it, or have the bus try it again."""
        self._publisher.background(self._recover(item, fault))

    async def _recover(self, item: Item, fault: Exception) -> None:
        leave = Leaving(item.consumer, item.message, dump(item.message.data) or b"")
        if isinstance(fault, RetryLater):
            await asyncio.sleep(fault.after)
            if self._state == "ready":  # else its twin brings it back where there is a host
                self._reactor.offer(item)
        elif isinstance(fault, Rejected | Conflict):
            await self._parking.park_message(leave, fault)
        else:
            await self._publisher.publish(
                [leave]
            )  # its deliveries are counted there, and it parks after the last

    def changed(self, changes: Changes) -> None:
        """Wake whoever watches these runs, here and on other hosts; stop calls nobody waits for; mind timers."""
        runs = changes.runs.keys()
        self.watchers.wake(runs)
        timers = changes.rows("set_timers")
        soonest = min(row[6] for row in timers) if timers else None
        self._obey_hint(soonest, changes.withdrawn)
        news = news_of(changes)
        self._obey_news(news, changes.withdrawn)
        self._hints.tell(runs, soonest, changes.withdrawn, written(news))
        if self._sealer is not None:
            self._sealer.work_seen()

    def limits_changed(self, tenant: UUID) -> None:
        """Have every host read a tenant's limits again (the operator's: those of all)."""
        news = News(limits=[tenant])
        self._obey_news(news)
        self._hints.tell((), notes=written(news))

    def _hinted(self, hint: Hint) -> None:
        self.watchers.wake(hint.runs)
        self._obey_hint(hint.timer_ms, hint.withdrawn)
        self._gating.planned(hint.runs)
        self._obey_news(read(hint.notes), hint.withdrawn)
        if self._sealer is not None:
            self._sealer.work_seen()

    def _obey_news(self, news: News, withdrawn: Sequence[tuple[UUID, str]] = ()) -> None:
        for tenant in news.limits:
            self._gating.changed(tenant)
        if self._gatekeeper is None:
            return
        if news.waits:
            self._gatekeeper.written(news.waits)
        if news.freed or withdrawn:
            self._gatekeeper.freed([*news.freed, *withdrawn])
        if news.limits:
            self._gatekeeper.limits_changed()

    def _obey_hint(self, soonest: int | None, withdrawn: Sequence[tuple[UUID, str]]) -> None:
        if soonest is not None and self._relay is not None:
            self._relay.timer_set(soonest)
        for run, key in withdrawn:
            for performer in self._performers.values():
                performer.withdraw(run, key)

    def _congested(self) -> bool:
        """Whether so much is queued here that what looks left behind is only waiting."""
        return self._reactor.queued > CONGESTED

    async def _resend_all(self) -> None:
        if self._relay is not None:
            self._relay.resend_all()

    # -- the API's engine ------------------------------------------------------------------------------

    async def submit(self, message: Message) -> Run | None:
        """Have a message from outside accepted; durable when it returns. Raises ``Rejected``, ``Conflict`` or
        ``RetryLater``."""
        return await self._reactor.handle(Item("api", message, once=once(message)))

    async def redeliver(self, message: ParkedMessage) -> None:
        """Have a parked message handled again: one of ours gets its twin back first, so that it can't be lost."""
        leave = await restored(message, self.store)
        if leave is None:
            await self._bus.republish(message.subject, message.headers, message.payload)
            return
        await self.store.restore(leave.message, leave.consumer, leave.data)
        self.send([leave])

    async def receive_event(self, name: str, event: Event) -> None:
        """Handle an event that came over HTTP for a function of this host."""
        await self._receivers[name].receive(event)

    async def receive_dead_letter(self, name: str, event: Event) -> None:
        """Keep an event for a function of this host that its sender has given up on."""
        await self._parking.park_event(name, event)

    def http(self) -> Asgi:
        """The host's HTTP face: probes and metrics, and the API where it carries it."""
        return with_probes(self.api() if self._control is not None else not_found, self, self.settings)

    def api(self) -> Asgi:
        """The API as an ASGI app."""
        from agentflow.control.app import create_app

        assert self._control is not None, "api_dsn was not given"
        assert self._models is not None
        return create_app(self, self._control, self.settings, self._models)

    def watch(self, run: UUID) -> Watch:
        return self.watchers.watch(run)


def catalogue(settings: Settings) -> ModelCatalogue:
    """Which models there are; ``Invalid`` when the settings contradict themselves."""
    from agentflow.models.catalogue import ModelCatalogue

    return ModelCatalogue.from_settings(settings)


def counting(settings: Settings, names: Sequence[str]) -> Callable[[str], Count | None] | None:
    """What counts the tokens of requests where holds are taken; None: no tokenizer is configured."""
    if "dispatch" not in names or not settings.models:
        return None
    from agentflow.models.tokens import Tokens

    return Tokens.of(settings.models)


def control(dsn: str) -> ControlStore:
    """The API's own way to the database."""
    from agentflow.store.control import ControlStore

    return ControlStore(dsn)


def keeper(settings: Settings, keeper_dsn: str, engine_dsn: str) -> Keeper:
    """What sees to partitions and old rows; only hosts that carry the relay need the modules."""
    from agentflow.runtime.retention import Keeper

    return Keeper(settings, keeper_dsn, engine_dsn)
