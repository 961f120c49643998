"""Makes checkout-service.log: a real checkout service under real load, until the payments service behind it stalls.

    python local/workflows/incident-triage/make_log.py > checkout-service.log

Three parts on the loopback, in one process, for ``SECONDS``: shoppers who buy without waiting for each other, the
checkout service with a bounded pool of connections, and payments, whose ledger has one lock. In the middle a
settlement job holds that lock far too long. Nobody scripts what follows: the pool runs dry because it is small.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from secrets import token_hex
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

SECONDS = 55.0
SHOPPERS_PER_SECOND = 27
SETTLEMENT = (19.0, 35.0)
"""When the settlement job runs, in seconds after the start."""
POOL = httpx.Limits(max_connections=8)
TIMEOUT = httpx.Timeout(2.0, pool=0.4)
SLOW_S = 0.25
STOCK = {f"sku-{number:02}": 43 for number in range(1, 13)}

http, inventory, payments, pool = (
    logging.getLogger(name) for name in ("http", "inventory", "payments", "pool")
)


# --- payments ----------------------------------------------------------------------------------------------

ledger = asyncio.Lock()


async def authorize(request: Request) -> JSONResponse:
    """Book an amount; one at a time."""
    order = await request.json()
    async with ledger:
        await asyncio.sleep(random.uniform(0.006, 0.014))
    return JSONResponse({"authorization": token_hex(6), "cents": order["cents"]})


async def settle(began: float) -> None:
    """The fault: a job that keeps the ledger to itself for more than a second at a time."""
    start, end = SETTLEMENT
    await asyncio.sleep(began + start - time.monotonic())
    while time.monotonic() < began + end:
        async with ledger:
            await asyncio.sleep(1.2)


# --- checkout ----------------------------------------------------------------------------------------------


class Checkout:
    """Reserves an item, takes the money, answers."""

    def __init__(self, payments_url: str) -> None:
        self.client = httpx.AsyncClient(base_url=payments_url, limits=POOL, timeout=TIMEOUT)
        self.stock = dict(STOCK)
        self.waiting = 0
        self.answers: Counter[int] = Counter()

    async def buy(self, request: Request) -> JSONResponse:
        began, number, order = time.monotonic(), token_hex(5), await request.json()
        status = await self.sell(number, order["sku"], order["cents"])
        self.answers[status] += 1
        level = logging.ERROR if status >= 500 else logging.INFO
        ms = (time.monotonic() - began) * 1000
        http.log(level, "request=%s POST /checkout status=%d ms=%.0f", number, status, ms)
        return JSONResponse({"request": number}, status)

    async def sell(self, number: str, sku: str, cents: int) -> int:
        if not self.stock[sku]:
            inventory.warning("request=%s out of stock sku=%s kind=OutOfStock", number, sku)
            return 409
        self.stock[sku] -= 1
        inventory.info("request=%s reserved sku=%s left=%d", number, sku, self.stock[sku])
        try:
            authorization = await self.pay(number, cents)
        except httpx.PoolTimeout:
            pool.error("request=%s no connection in time kind=PoolTimeout waiting=%d", number, self.waiting)
        except httpx.TransportError as fault:
            payments.error("request=%s call failed kind=%s", number, type(fault).__name__)
        else:
            payments.info("request=%s authorized cents=%d authorization=%s", number, cents, authorization)
            return 200
        self.stock[sku] += 1
        return 503

    async def pay(self, number: str, cents: int) -> str:
        self.waiting += 1
        warn = asyncio.get_running_loop().call_later(SLOW_S, self.slow, number)
        try:
            answer = await self.client.post("/authorize", json={"cents": cents})
            return str(answer.raise_for_status().json()["authorization"])
        finally:
            warn.cancel()
            self.waiting -= 1

    def slow(self, number: str) -> None:
        payments.warning("request=%s no answer after ms=%.0f kind=SlowAnswer", number, SLOW_S * 1000)

    async def restock(self) -> None:
        while True:
            await asyncio.sleep(20)
            self.stock = dict(STOCK)
            inventory.info("restocked items=%d", len(STOCK))


# --- shoppers ----------------------------------------------------------------------------------------------


async def shop(url: str, until: float) -> None:
    """Buy at a steady rate on average, whether or not the service keeps up."""
    many = httpx.Limits(max_connections=200)
    async with (
        httpx.AsyncClient(base_url=url, timeout=10, limits=many) as client,
        asyncio.TaskGroup() as shoppers,
    ):
        while time.monotonic() < until:
            order = {"sku": random.choice(list(STOCK)), "cents": random.randint(499, 18_999)}
            shoppers.create_task(client.post("/checkout", json=order))
            await asyncio.sleep(random.expovariate(SHOPPERS_PER_SECOND))


# --- the three together ------------------------------------------------------------------------------------


async def serve(path: str, handler: Any) -> tuple[uvicorn.Server, asyncio.Task[None], str]:
    app = Starlette(routes=[Route(path, handler, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return server, running, f"http://{host}:{port}"


async def main() -> None:
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    for name in ("httpx", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    began = time.monotonic()
    bank, bank_runs, bank_url = await serve("/authorize", authorize)
    checkout = Checkout(bank_url)
    desk, desk_runs, desk_url = await serve("/checkout", checkout.buy)
    print(f"checkout-service at {desk_url}, payments at {bank_url}, pool of {POOL.max_connections}")
    jobs = [asyncio.create_task(settle(began)), asyncio.create_task(checkout.restock())]
    await shop(desk_url, began + SECONDS)
    for job in jobs:
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job
    desk.should_exit = bank.should_exit = True
    await asyncio.gather(desk_runs, bank_runs)
    await checkout.client.aclose()
    print(f"checkout-service stopped, answers {dict(sorted(checkout.answers.items()))}")


if __name__ == "__main__":
    asyncio.run(main())
