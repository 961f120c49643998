"""A host for tests that kills itself: ``python killed_host.py POINT PASSES ENGINE RELAY NATS FAR``.

At the PASSES-th time it comes to POINT it is dead: ``hold`` (a call is about to be claimed), ``claim`` (it has been,
and is about to be made), ``answer`` (the far side has answered) or ``settled`` (the report is committed); ``never``.
Its tools are calls of the far side, which is told the run, step and attempt of each.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from agentflow.config import Settings
from agentflow.core.performed import Performed
from agentflow.errors import RetryLater
from agentflow.observe import logs
from agentflow.runtime import claims, performer
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.store.postgres import PostgresStore
from agentflow.tools.effect import ONE_CALL, RunTool


def main() -> None:
    """Serve until killed."""
    logs.configure("warning", sys.stderr)  # nobody reads on after the first line of stdout
    point, passes, engine, relay, nats, far = sys.argv[1:]
    left = int(passes)

    def passing(where: str) -> None:
        nonlocal left
        left -= where == point
        if left == 0 and where == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def after(owner: Any, name: str, where: str, before: str = "") -> None:
        original: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def watched(*args: Any, **more: Any) -> Any:
            if before:
                passing(before)
            result = await original(*args, **more)
            passing(where)
            return result

        setattr(owner, name, watched)

    async def perform(_: Any, request: Any, begins: Any = None) -> Performed:
        data = request.data
        async with httpx.AsyncClient(timeout=20) as client:
            await client.post(far, content=f"{data['run']} {data['step']} {data['attempt']}")
        passing("answer")
        return Performed({"n": data["input"]["n"]}, dict(ONE_CALL))

    RunTool.perform = perform  # type: ignore[assignment]
    after(PostgresStore, "claim", "claim", before="hold")
    after(performer.Performer, "_report", "settled")
    claims.LEASE_S = performer.LEASE_S = 3.0
    claims.SAFE_S, performer.MINDED_AFTER_S = 0.3, 0.3

    async def serve() -> None:
        with tempfile.TemporaryDirectory() as folder:
            settings = replace(Settings(), home=Path(folder), sandbox="process", script_dir=Path(folder))
            host = Host(settings, [*NAMES[:-1]], engine_dsn=engine, relay_dsn=relay, nats_url=nats)
            while True:
                try:
                    await host.start()
                    break
                except RetryLater as fault:  # as every host does, on a machine that is busy with other things
                    print(f"not ready yet: {fault}", file=sys.stderr)
                    await asyncio.sleep(0.2)
            print("ready", flush=True)
            await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
