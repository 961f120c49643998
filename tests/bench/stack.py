"""What every row measures on: PostgreSQL (fsync on), NATS and a tenant, in a folder that goes afterwards."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from database import Database
from workloads import SCRIPT

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.observe import logs, metrics, traces
from agentflow.runtime.embedded import LOCAL_TENANT, Backends, backends, local_key
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.runtime.receive import foreign
from agentflow.wire.event import Event


class Stack:
    """Running servers with one tenant, and hosts on them in this process."""

    def __init__(self, settings: Settings, running: Backends, key: str) -> None:
        self.settings = settings
        self.running = running
        self.key = key
        self.database = Database(running.admin_dsn)

    @asynccontextmanager
    async def host(
        self, names: Sequence[str] = tuple(NAMES), *, relay: bool = True, **changes: Any
    ) -> AsyncIterator[Host]:
        """A host that carries ``names`` in this process; ``changes`` are settings."""
        async with carried(replace(self.settings, **changes), names, relay=relay) as host:
            yield host

    async def register(self, document: dict[str, Any]) -> str:
        """Put a workflow into the registry; its name."""
        from agentflow.wire.document import compile_document

        plan = compile_document(document)
        await self.database.register(LOCAL_TENANT, plan.name, plan.hash, plan.document)
        return plan.name

    @asynccontextmanager
    async def ending(self, count: int, *, within_s: float = 120) -> AsyncIterator[None]:
        """Whatever is done inside has made ``count`` more runs succeed, and none fail, when this is left."""
        succeeded, failed = reached("succeeded"), reached("failed")
        yield
        await until(
            lambda: reached("succeeded") - succeeded >= count or reached("failed") > failed,
            within_s=within_s,
            what=f"{count} runs end",
        )
        assert reached("failed") == failed, await self.database.errors()

    def script(self, latency_ms: int) -> None:
        """Have the scripted model answer after this long; it looks for changes once a second."""
        (self.settings.script_dir / "bench.model.yaml").write_text(SCRIPT.format(latency_ms=latency_ms))


@asynccontextmanager
async def stack(**changes: Any) -> AsyncIterator[Stack]:
    """Servers of our own, everything on as in production; ``changes`` are settings."""
    with tempfile.TemporaryDirectory(prefix="agentflow-bench-", ignore_cleanup_errors=True) as home:
        settings = replace(
            Settings(), home=Path(home), script_dir=Path(home), trace_sample=0.01, sandbox="process"
        )
        settings = replace(settings, **changes)
        observe(settings)
        async with backends(settings) as running:
            settings = replace(settings, database_url=running.url, nats_url=running.nats.url)
            made = Stack(settings, running, await local_key(settings, running))
            await made.database.open_account(LOCAL_TENANT)
            made.script(0)
            yield made


@asynccontextmanager
async def carried(
    settings: Settings, names: Sequence[str] = tuple(NAMES), *, relay: bool = True
) -> AsyncIterator[Host]:
    """A host that carries ``names`` in this process, on the servers that the settings name."""
    host = Host(
        settings,
        names,
        engine_dsn=settings.dsn("agentflow_engine"),
        relay_dsn=settings.dsn("agentflow_relay") if relay else None,
        keeper_dsn=settings.dsn("agentflow_keeper") if relay else None,
        nats_url=settings.nats_url,
    )
    try:
        await host.start()
        yield host
    finally:
        await host.stop()


def observe(settings: Settings) -> None:
    """Trace as the settings say, and be quiet."""
    traces.configure(settings)
    logs.configure("error", sys.stderr)


def request(workflow: str, given: dict[str, Any] | None = None) -> Message:
    """The request of a new run."""
    run = uuid4()
    data = {"run": str(run), "workflow": workflow, "version": 1, "input": given or {}, "budget_micro": None}
    return Message("run.requested", LOCAL_TENANT, run, "requested", data)


async def submit(host: Host, workflow: str, inputs: Sequence[dict[str, Any]]) -> list[UUID]:
    """Request a run per input, all at once; they are durable when this returns."""
    requests = [request(workflow, given) for given in inputs]
    await asyncio.gather(*(host.submit(each) for each in requests))
    return [each.run for each in requests]


async def publish(host: Host, event_type: str, subject: str) -> None:
    """Publish a CloudEvent, as a client does over HTTP; it is durable when this returns."""
    event = Event(str(uuid4()), "/bench", event_type, subject=subject)
    await host.submit(foreign(event, LOCAL_TENANT))


def reached(status: str) -> int:
    """Runs that have come to a status by decisions of this process."""
    for family in metrics.RUNS.collect():
        for sample in family.samples:
            if sample.labels.get("status") == status and sample.name.endswith("_total"):
                return int(sample.value)
    return 0


async def until(done: Callable[[], bool], *, within_s: float, what: str) -> None:
    """Wait for something that tells nobody when it has happened; ``done`` looks at this process only."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within_s:g} s: {what}")
        await asyncio.sleep(0.02)


async def burst(
    host: Host, on: Stack, workflow: str, inputs: Sequence[dict[str, Any]], *, within_s: float = 120
) -> float:
    """Seconds from the first submission to the end of the last run, by the database's clock on this machine."""
    began = time.time()
    async with on.ending(len(inputs), within_s=within_s):
        await submit(host, workflow, inputs)
    return await on.database.last_end(workflow) - began
