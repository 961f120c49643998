"""Cold start: from the start of a process that carries one function to the first event it has handled.

Servers run and one event waits; ``agentflow serve <function>`` is started as a container would be. Handled means
committed with its decision: the time is that of the row, by the database's clock, which is this machine's. For api it
is the answer to the first request, asked for from the start on. push: the same with the event POSTed, asked for from
the start on, as Knative's activator does while a pod starts.

Imports: the wall time of a Python that imports what the function's process has imported once it is ready, less the wall
time of a Python that imports nothing. Bytecode is compiled beforehand, as in an image. given_import_ms is what the
libraries that the project was given take alone: how far imports can come down.

    python tests/bench/cold.py [--starts 5] [--functions plan,dispatch] [--full]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from uuid import UUID, uuid4

import httpx
import report
from cpu import spent_s
from report import Row, at_most, median, row, say
from stack import Stack, request, stack
from worker import Worker
from workloads import tool_and_call

from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.wire.http import to_http

# The functions that bring a run to where the event of each waits, and where its decision leaves a mark.
BEFORE: dict[str, tuple[tuple[str, ...], str]] = {
    "plan": ((), "select at from history where run_id = %s and name = 'run.planned'"),
    "dispatch": (("plan",), "select at from history where run_id = %s and name = 'run.started'"),
    "run_tool": (
        ("plan", "dispatch"),
        "select completed_at from steps where run_id = %s and kind = 'tool' and completed_at is not null",
    ),
    "account_cost": (
        ("plan", "dispatch", "run_tool"),
        "select at from ledger where run_id = %s and entry = 'settle'",
    ),
    "invoke_llm": (
        ("plan", "dispatch", "run_tool", "account_cost"),
        "select completed_at from steps where run_id = %s and kind = 'llm' and completed_at is not null",
    ),
}
WAITING = "select count(*) from outbox where run_id = %s and consumer = %s"
IMPORTS = """
import sys
from agentflow import __main__
from agentflow.terminal import stack

async def carried(settings, names, **_):
    from agentflow.observe import logs, traces
    from agentflow.runtime import function, host, serve
    import uvicorn
    for name in names:
        function.load(name)
        if name == "api":
            from agentflow.control import app

stack.run_serve = carried
sys.argv = ["agentflow", "serve", {name!r}]
__main__.main()
"""


# The libraries that the project is to be made of, and without which no function of it starts.
GIVEN = "import sys; sys.modules['rich'] = None; import asyncio, nats, psycopg, pydantic, structlog, uvicorn"


class Starts:
    """Starts of one function, each with an event that waits for it."""

    def __init__(self, on: Stack, host: Host, name: str) -> None:
        self._on = on
        self._host = host
        self._name = name
        self.cpu_ms: list[float] = []  # what each process had spent when its event was handled
        self._key = {"Authorization": f"Bearer {on.key}"}

    async def pull(self) -> float:
        """Milliseconds from the start to the decision of the event that waited on JetStream."""
        if self._name == "api":
            return await self._asked(push=False)
        run_id = await self._waiting()
        worker = Worker(self._on, [self._name])
        began = time.time()
        await worker.start()
        try:
            _, mark = BEFORE[self._name]
            async with await self._on.database.connect() as conn:
                for _ in range(1000):
                    found = await (await conn.execute(mark, (run_id,))).fetchone()
                    if found is not None:
                        self.cpu_ms.append(spent_s(worker.pid) * 1000)
                        return float(found[0].timestamp() - began) * 1000
                    await asyncio.sleep(0.01)
            raise AssertionError(f"{self._name} does not handle its event")
        finally:
            await worker.stop()

    async def push(self) -> float:
        """Milliseconds from the start to the answer to the event that was POSTed."""
        return await self._asked(push=True)

    async def _asked(self, *, push: bool) -> float:
        headers, body, path = self._request() if self._name == "api" else await self._event()
        port = free_port()
        worker = Worker(self._on, [self._name], push=push, AGENTFLOW_HTTP_PORT=str(port))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            began = time.time()
            await worker.start()
            try:
                while True:
                    assert time.time() - began < 20, f"{self._name} does not answer"
                    try:
                        answer = await client.post(path, content=body, headers=headers)
                    except httpx.TransportError:
                        await asyncio.sleep(0.003)
                        continue
                    if answer.status_code == 503:
                        await asyncio.sleep(0.003)
                        continue
                    took = (time.time() - began) * 1000
                    assert answer.status_code in (200, 202, 204), answer.text
                    self.cpu_ms.append(spent_s(worker.pid) * 1000)
                    return took
            finally:
                await worker.stop()

    async def _waiting(self) -> UUID:
        """A run whose event for this function waits."""
        message = request("tool-and-call", {"n": 1})
        await self._host.submit(message)
        async with await self._on.database.connect() as conn:
            for _ in range(500):
                if (await (await conn.execute(WAITING, (message.run, self._name))).fetchone()) == (1,):
                    return message.run
                await asyncio.sleep(0.01)
        raise AssertionError(f"no event comes to wait for {self._name}")

    def _request(self) -> tuple[dict[str, str], bytes, str]:
        headers = self._key | {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
        return headers, b'{"workflow": "tool-and-call", "input": {"n": 1}}', "/v1/runs"

    async def _event(self) -> tuple[dict[str, str], bytes, str]:
        """The waiting event as a CloudEvent over HTTP."""
        event = await self._on.database.waiting(await self._waiting(), self._name)
        headers, body = to_http(event)
        return dict(headers), body, "/"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def import_ms(code: str, times: int) -> float:
    """Milliseconds that ``code`` takes, which imports."""
    kept = {key: text for key, text in os.environ.items() if key in ("PATH", "HOME", "PYTHONPATH")}

    def wall(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=kept, check=True)
        return (time.perf_counter() - began) * 1000

    wall(code)
    # In turns: what else the machine does befalls both.
    pairs = [(wall(code), wall("pass")) for _ in range(times)]
    return median([whole - bare for whole, bare in pairs], 0)


async def measure(on: Stack, name: str, starts: int) -> Row:
    before = BEFORE[name][0] if name in BEFORE else ()
    async with on.host(("api", *before), relay=False) as host:
        each = Starts(on, host, name)
        await each.pull()  # compiles what was not compiled yet
        each.cpu_ms.clear()
        pulled = [await each.pull() for _ in range(starts)]
        pulled_cpu = median(each.cpu_ms, 0)
        pushed = [await each.push() for _ in range(starts)]
    return {
        "pull_ms": median(pulled, 0),
        "pull_most_ms": round(max(pulled)),
        "pull_cpu_ms": pulled_cpu,
        "push_ms": median(pushed, 0),
        "push_most_ms": round(max(pushed)),
        "import_ms": import_ms(IMPORTS.format(name=name), max(5, starts)),
    }


async def bench(args: argparse.Namespace) -> Row:
    names = args.functions.split(",") if args.functions else list(NAMES)
    starts = args.starts * 3 if args.full else args.starts
    found: dict[str, Row] = {}
    async with stack() as on:
        await on.register(tool_and_call())
        for name in names:
            found[name] = await measure(on, name, starts)
            say(f"{name}: {found[name]}")
    goals = []
    for what, key, limit in (
        ("start to first event, pulled", "pull_ms", 400),
        ("start to first event, pushed", "push_ms", 400),
        ("imports", "import_ms", 150),
    ):
        _, slowest = max((found[name][key], name) for name in names)
        goals.append(
            at_most(f"{what}, median, slowest function ({slowest})", found[slowest][key], limit, "ms")
        )
    given = import_ms(GIVEN, max(5, starts))
    return row("cold", goals, {"starts": starts, "given_import_ms": given, "functions": found})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--functions", help="default: all")
    parser.add_argument("--full", action="store_true", help="three times as many starts")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
