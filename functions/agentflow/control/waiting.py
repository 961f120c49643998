"""Clients that are held open. One that leaves frees everything it held, at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import UUID

from starlette.types import Receive

from agentflow.control.call import Call
from agentflow.core.run import TERMINAL

LOOK_ANEW_S = 15.0
"""How often a waiting request looks by itself: mends a wake-up that was lost on its way."""

T = TypeVar("T")


class Gone(Exception):
    """The client has left."""


async def ended(call: Call, run: UUID, seconds: float) -> bool:
    """Wait for the run to end, at most ``seconds``; whether it has. ``Gone`` when the client leaves."""

    async def wait() -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        async with call.services.engine.watch(run) as watch:
            while True:
                row = await call.services.store.run_status(call.tenant, run)
                if row is not None and row["status"] in TERMINAL:
                    return True
                left = deadline - loop.time()
                if left <= 0:
                    return False
                await watch.changed(min(left, LOOK_ANEW_S))

    with call.services.waits.hold():
        return await while_connected(call.request.receive, wait())


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Do the work unless the client leaves first: then it is cancelled and ``Gone`` raised.

    The request's body must have been read, so that the next message can only be the disconnect.
    """
    worker = asyncio.ensure_future(work)
    listener = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({worker, listener}, return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            raise Gone
        return worker.result()
    finally:
        for task in (worker, listener):
            task.cancel()
        await asyncio.gather(worker, listener, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
