"""Commands that carry the system: everything here, some functions, the bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal.client import URL_FILE

CARRIERS = ("relay", "bridge")
SAMPLE = "incident-triage.yaml"
SAMPLE_LOG = "incident-triage/checkout-service.log"


async def run_dev(
    settings: Settings, *, sample: bool, leave: bool, port: int | None, processes: int | None = None
) -> int:
    """Start the embedded stack; with ``sample`` run the sample workflow in it. The process's exit code."""
    from agentflow.runtime.embedded import dev

    if port is not None:
        settings = replace(settings, http_port=port)
    if processes is not None:
        settings = replace(settings, processes=processes)
    folder = settings.script_dir
    if sample and not (folder / SAMPLE).is_file():
        mend = "start it in the checkout, or set AGENTFLOW_SCRIPT_DIR"
        raise Rejected(f"there is no {SAMPLE}", code="no_sample", path=str(folder), mend=mend)
    settings.home.mkdir(parents=True, exist_ok=True)
    # The terminal is for the person in front of it, so log lines go to a file; it stays open to the last of them.
    log = (settings.home / "agentflow.log").open("a", buffering=1)
    _observe(settings, log)

    left: list[Path] = []

    async def then(url: str, key: str) -> int:
        left.append(settings.home / URL_FILE)
        left[0].write_text(url + "\n")
        print(await isolation(settings), flush=True)
        code = await run_sample(url, key, folder) if sample else 0
        print(f"API {url}  key in {settings.home / 'api_key'}  log in {log.name}", flush=True)
        if not leave:
            # A browser sends nobody what is behind the #; the key is that of a development's tenant.
            print(f"dashboard {url}/#key={key}\nstop with Ctrl-C", flush=True)
        return code

    try:
        return await dev(settings, then=then, stay=not leave, output=log)
    finally:
        for file in left:  # none where another one runs here, and this one has not come so far
            file.unlink(missing_ok=True)


async def isolation(settings: Settings) -> str:
    """What keeps tools apart here; where that is not enough, what is missing."""
    from agentflow.sandbox.choice import open_sandbox

    sandbox = await asyncio.to_thread(open_sandbox, settings)
    try:
        return sandbox.missing or sandbox.isolates
    finally:
        await sandbox.close()


async def run_sample(url: str, key: str, folder: Path) -> int:
    """Run the sample workflow on its log file and show it live; 0 when it succeeded."""
    from agentflow.terminal.client import connect
    from agentflow.terminal.inputs import read_inputs
    from agentflow.terminal.loading import compile_file
    from agentflow.terminal.running import follow_to_end, register, start

    plan = compile_file(str(folder / SAMPLE))
    inputs = read_inputs([f"log=@{folder / SAMPLE_LOG}"], plan.input)
    async with connect(url, key) as client:
        accepted = await start(client, await register(client, plan), inputs)
        return await follow_to_end(client, accepted["id"])


async def run_serve(
    settings: Settings, functions: Sequence[str], *, push: bool, relay: bool, replica: bool = False
) -> None:
    """Carry functions until SIGTERM."""
    from agentflow.runtime.function import NAMES
    from agentflow.runtime.processes import end_with_parent
    from agentflow.runtime.serve import serve

    if replica:
        end_with_parent()
    push = push or settings.push
    if not functions and not relay:
        functions, relay = _own(settings, push)
        if not functions and not relay:
            await run_bridge(settings)
            return
    given = "" if functions != [settings.function.replace("-", "_")] else "AGENTFLOW_FUNCTION"
    names = list(NAMES) if list(functions) == ["all"] else [name.replace("-", "_") for name in functions]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        mend = f"there are: {', '.join((*NAMES, *CARRIERS) if given else NAMES)}, all"
        raise Rejected(f"there is no function {unknown[0]!r}", code="unknown_function", path=given, mend=mend)
    if push and len(names) != 1:
        raise Rejected("--push takes one function", code="usage", mend="start one process per function")
    _observe(settings)
    await serve(settings, names, push=push, relay=relay, shared=replica)


def _own(settings: Settings, push: bool) -> tuple[list[str], bool]:
    """What this image is for: its functions, and whether the relay; neither: the bridge."""
    name = settings.function.replace("-", "_")
    if not name:
        mend = "name it: agentflow serve dispatch, or set AGENTFLOW_FUNCTION"
        raise Rejected("no function to serve", code="usage", mend=mend)
    if push and name in CARRIERS:
        raise Rejected(f"{name} takes no events over HTTP", code="usage", path="--push", mend="leave --push out")
    return ([] if name in CARRIERS else [name]), name == "relay"


async def run_bridge(settings: Settings) -> None:
    """Carry the bridge until SIGTERM."""
    from agentflow.runtime.bridge import bridge

    _observe(settings)
    await bridge(settings)


def _observe(settings: Settings, log: object = None) -> None:
    from agentflow.observe import logs, traces

    logs.configure(settings.log_level, log)  # type: ignore[arg-type]
    traces.configure(settings)
