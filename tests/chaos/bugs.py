"""Planted bugs: each breaks one invariant on purpose, so that the checker can be seen to catch it.

A bug is planted inside a worker by wrapping the seam where such a bug could be. What every bug has to be called,
in ``test_checker``, is the number of the invariant it breaks.
"""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from chaos import seams

Async = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Bug:
    """``only``: the workflows it shows in. ``stuck``: runs hang, so that nothing ever comes to rest."""

    invariant: int
    plant: Callable[[], None]
    only: str = "series waits retried"
    stuck: bool = False
    form: str = "one"


def _wrap(name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[], None]:
    return lambda: seams.replace(name, lambda original: functools.wraps(original)(around(original)))


def _every(count: int, chosen: object) -> bool:
    """Whether a run is one of every so many, the same ones in every process."""
    return UUID(str(chosen)).int % count == 0


# -- 1, 2 ------------------------------------------------------------------------------------------------------


def _ends_twice(decide: Callable[..., Any]) -> Callable[..., Any]:
    """Whoever ends a run as succeeded says that it has failed, too."""

    def decided(run: Any, message: Any, facts: Any) -> Any:
        decision = decide(run, message, facts)
        extra = []
        for said in decision.messages:
            if said.name == "run.completed":
                data = {name: value for name, value in said.data.items() if name != "output"}
                data["error"] = {"code": "x", "message": "x", "path": ""}
                extra.append(said._replace(name="run.failed", key="ended:again", data=data))
        return decision._replace(messages=(*decision.messages, *extra))

    return decided


def _answers_too_soon(submit: Async) -> Async:
    """Some submissions are acknowledged and never made durable."""

    async def submitted(host: Any, message: Any, *rest: Any) -> Any:
        warm = "-warm-" in str(message.data.get("input"))  # the round waits for those before it begins
        if message.name == "run.requested" and not warm and _every(4, message.run):
            return None
        return await submit(host, message, *rest)

    return submitted


# -- 3, 4 ------------------------------------------------------------------------------------------------------


def _sends_before_commit() -> None:
    """A request is handed over while the transaction that it follows from is still being made, and the call is made
    without a claim, which only a request that is there admits."""
    hosts: list[Any] = []

    def born(init: Callable[..., None]) -> Callable[..., None]:
        def made(host: Any, *args: Any, **kwargs: Any) -> None:
            hosts.append(host)
            init(host, *args, **kwargs)

        return made

    def kept(keep: Callable[..., None]) -> Callable[..., None]:
        def keeping(batch: Any, leave: Any, *rest: Any) -> None:
            keep(batch, leave, *rest)
            if leave.consumer == "invoke_llm":
                hosts[0].send([leave])

        return keeping

    def slow(commit: Async) -> Async:
        async def committing(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0.1)
            return await commit(*args, **kwargs)

        return committing

    def granted(_: Async) -> Async:
        from agentflow.store.postgres import Claimed

        async def granting(_: Any, calls: Any) -> Any:
            return {(run, key): Claimed(mine=True, alive=True) for _, run, key, *_ in calls}

        return granting

    _wrap("host", born)()
    _wrap("keep", kept)()
    _wrap("claim", granted)()
    _wrap("commit", slow)()
    _wrap("save", slow)()


def _tidies(statement: bytes) -> Callable[[], None]:
    """Somebody tidies up what has been committed, twice a second."""

    def tidy_up(dsn: str) -> None:
        import time

        import psycopg

        with psycopg.connect(dsn, autocommit=True) as conn:
            while True:
                time.sleep(0.5)
                conn.execute(statement)

    def born(init: Callable[..., None]) -> Callable[..., None]:
        def made(host: Any, settings: Any, *args: Any, **kwargs: Any) -> None:
            init(host, settings, *args, **kwargs)
            threading.Thread(target=tidy_up, args=(settings.dsn("postgres"),), daemon=True).start()

        return made

    return _wrap("host", born)


CHANGES_RESULTS = b"""
update agentflow.steps set output = '{"n": -1}' where status = 'succeeded' and task = 'echo'
and completed_at < clock_timestamp() - interval '1 second'"""
REWRITES_PRICES = b"update agentflow.ledger set price = 'of last year' where entry = 'hold' and price <> 'of last year'"
WARNS_AGAIN = b"update agentflow.budgets set warned = false where warned"


def _forgets_halts(halt: Callable[..., None]) -> Callable[..., None]:
    """A halted step stays open, and its result counts."""
    return lambda turn, step: None


# -- 5, 6 ------------------------------------------------------------------------------------------------------


def _calls_twice(perform: Async) -> Async:
    async def performed(effect: Any, request: Any, *rest: Any) -> Any:
        first, _ = await asyncio.gather(perform(effect, request, *rest), perform(effect, request, *rest))
        return first

    return performed


def _takes_the_unknown_for_failed(attempt: Async) -> Async:
    """A call that was given up is tried again, also where it may be made once only."""

    async def attempted(perform: Any, request: Any) -> Any:
        done = await attempt(perform, request)
        if not request.data.get("once") or request.data["attempt"] > 1:
            return done
        error = {"code": "timeout", "message": "no answer", "retryable": True, "retry_after_ms": None}
        return replace(done, output=None, error=error)

    return attempted


def _keeps_twins(consume: Callable[..., None]) -> Callable[..., None]:
    """What has been consumed stays in the outbox."""

    def consumed(changes: Any, twin: Any) -> None:
        if not (twin[3] == "run_tool" and _every(3, twin[1])):
            consume(changes, twin)

    return consumed


def _forgets_the_inbox(enter: Async) -> Async:
    """What has been handled before is handled again."""

    async def entered(transaction: Any, rows: Any) -> Any:
        await enter(transaction, rows)
        return set(rows)

    return entered


def _drops_twins(request: Callable[..., None]) -> Callable[..., None]:
    """Requests leave without a durable copy."""

    def requested(changes: Any, message: Any, consumer: str, *rest: Any) -> None:
        if consumer != "invoke_llm":
            request(changes, message, consumer, *rest)

    return requested


def _loses_facts() -> None:
    """Public facts get no twin, and some are not published either."""

    def requested(request: Callable[..., None]) -> Callable[..., None]:
        def requesting(changes: Any, message: Any, consumer: str, *rest: Any) -> None:
            if consumer != "facts":
                request(changes, message, consumer, *rest)

        return requesting

    def published(publish: Async) -> Async:
        async def publishing(publisher: Any, leaving: Any) -> Any:
            return await publish(publisher, [each for each in leaving if not _lost(each)])

        return publishing

    def _lost(leave: Any) -> bool:
        return leave.consumer == "facts" and _every(3, leave.message.run)

    _wrap("request", requested)()
    _wrap("publish", published)()


# -- 7, 8, 9 ---------------------------------------------------------------------------------------------------


def _settles_twice(decide: Callable[..., Any]) -> Callable[..., Any]:
    def decided(run: Any, message: Any, facts: Any) -> Any:
        decision = decide(run, message, facts)
        if decision.run is None:
            return decision
        spent = decision.run.spent_micro + message.data["cost_micro"]
        return decision._replace(run=decision.run.but(spent_micro=spent))

    return decided


def _depends_on_the_host(advance: Callable[..., Any]) -> Callable[..., Any]:
    """A decision that knows which process it is made in."""

    def advanced(plan: Any, state: Any, event: Any, *more: Any) -> Any:
        moved = advance(plan, state, event, *more)
        variables = {**moved.state.vars, "n": moved.state.vars["n"] + os.getpid() % 2 + 1}
        return replace(moved, state=replace(moved.state, vars=variables))

    return advanced


def _forgets_timers(add: Callable[..., None]) -> Callable[..., None]:
    def added(changes: Any, run: Any, row: Any) -> None:
        if getattr(row, "kind", "") != "wait" or not hasattr(row, "after_ms"):
            add(changes, run, row)

    return added


# -- 10 to 14 -------------------------------------------------------------------------------------------------


def _drops_poison(park: Async) -> Async:
    async def parked(parking: Any, parcel: Any) -> bool:
        return True

    return parked


def _mixes_tenants() -> None:
    """A line of history is written with the tenant of an earlier batch, whose name the connection still bears."""
    seen: dict[UUID, None] = {}

    def mixed(commit: Async) -> Async:
        async def committing(store: Any, tenants: Any, changes: Any) -> Any:
            lines = changes.tables.get("insert_history", [])
            seen.update(dict.fromkeys(line[0] for line in lines))
            other = next((tenant for tenant in seen if lines and tenant != lines[0][0]), None)
            if other is not None:
                lines[0] = (other, *lines[0][1:])
                tenants = {*tenants, other}
            return await commit(store, tenants, changes)

        return committing

    _wrap("commit", mixed)()


def _loses_links(keep: Callable[..., None]) -> Callable[..., None]:
    """What is remembered of a run goes on from the chain as it was before."""
    return lambda memory, runs, chains: keep(memory, runs, {})


def _leaks() -> None:
    """A transaction that nobody ends, and a file that nobody removes."""

    def born(init: Callable[..., None]) -> Callable[..., None]:
        def made(host: Any, settings: Any, *args: Any, **kwargs: Any) -> None:
            import psycopg

            init(host, settings, *args, **kwargs)
            host.leaked = psycopg.connect(settings.dsn("agentflow_engine"))
            host.leaked.execute("select 1")
            os.close(tempfile.mkstemp(prefix="leaked-")[0])

        return made

    _wrap("host", born)()


def _fires_early() -> None:
    def early(sql: dict[str, bytes]) -> dict[str, bytes]:
        due, sooner = b"statement_timestamp()", b"statement_timestamp() + interval '150 milliseconds'"
        assert due in sql["fire_timers"], "the statement is another one: plant the bug anew"
        return {**sql, "fire_timers": sql["fire_timers"].replace(due, sooner)}

    seams.replace("relay_sql", early)


BUGS = {
    "ends twice": Bug(1, _wrap("dispatch", _ends_twice)),
    "answers too soon": Bug(2, _wrap("submit", _answers_too_soon), stuck=True),
    "sends before commit": Bug(3, _sends_before_commit, only="series"),
    "changes results": Bug(3, _tidies(CHANGES_RESULTS)),
    "forgets halts": Bug(4, _wrap("halt", _forgets_halts), only="race"),
    "calls twice": Bug(5, _wrap("perform", _calls_twice), only="series"),
    "calls again": Bug(5, _wrap("call", _takes_the_unknown_for_failed), only="charged"),
    "keeps twins": Bug(6, _wrap("consume", _keeps_twins), stuck=True),
    "forgets the inbox": Bug(6, _wrap("inbox", _forgets_the_inbox), only="machine"),
    "loses facts": Bug(6, _loses_facts),
    "warns again": Bug(6, _tidies(WARNS_AGAIN), only="series"),
    "settles twice": Bug(7, _wrap("account_cost", _settles_twice)),
    "depends on the host": Bug(8, _wrap("advance", _depends_on_the_host)),
    "drops twins": Bug(9, _wrap("request", _drops_twins), only="race"),
    "forgets timers": Bug(9, _wrap("row", _forgets_timers), only="waits", stuck=True),
    "drops poison": Bug(10, _wrap("park", _drops_poison), stuck=True),
    "mixes tenants": Bug(11, _mixes_tenants),
    "rewrites prices": Bug(12, _tidies(REWRITES_PRICES), only="series"),
    "loses links": Bug(12, _wrap("remember", _loses_links)),
    "leaks": Bug(13, _leaks),
    "fires early": Bug(14, _fires_early, only="waits"),
}
