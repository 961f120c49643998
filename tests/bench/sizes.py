"""What runs leave behind and what processes hold: bytes in PostgreSQL, of its log and on the bus per step; connections
and memory per process. None of it depends on how busy the machine is. Prints one JSON line.

    python tests/bench/sizes.py [--runs 2000]

Bytes are what tables and their indexes have grown by, once for runs of ten trivial steps (each with a price, a number
in and a number out) and once for as many with 4 KiB more in each input and output. Processes are `agentflow serve` with
one function each, idle; memory is what they have to themselves (USS) and in all (RSS).
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import nats
import psycopg
from report import say
from stack import Stack, burst, stack
from workloads import STEPS, ten_steps

from agentflow.runtime.loop import run

FUNCTIONS = ("api", "plan", "dispatch", "invoke_llm", "run_tool", "account_cost", "relay", "all")
SIZES = """select coalesce(p.relname, c.relname) as name, sum(pg_total_relation_size(c.oid))::bigint
    from pg_class c left join pg_inherits i on i.inhrelid = c.oid left join pg_class p on p.oid = i.inhparent
    where c.relnamespace = 'agentflow'::regnamespace and c.relkind = 'r' group by 1"""
CONNECTIONS = "select usename, count(*) from pg_stat_activity where usename like 'agentflow%%' group by 1 order by 1"
KIB = 1024


async def rows(on: Stack, query: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(on.running.admin_dsn, autocommit=True) as conn:
        return await (await conn.execute(query.encode())).fetchall()


async def grown(on: Stack, workflow: str, runs: int, given: dict[str, Any]) -> dict[str, float]:
    """Bytes per step, by table, and of the write-ahead log, of so many runs."""
    async with on.host(retention="forever") as host:
        await burst(host, on, workflow, [given] * 50)
        before, (wal,) = dict(await rows(on, SIZES)), await rows(on, "select pg_current_wal_lsn()")
        await burst(host, on, workflow, [given] * runs)
        ((written,),) = await rows(on, f"select pg_current_wal_lsn() - '{wal[0]}'")
    after = dict(await rows(on, SIZES))
    steps = runs * STEPS
    found = {name: round((after[name] - before.get(name, 0)) / steps, 1) for name in after}
    kept = {name: size for name, size in found.items() if name in ("runs", "steps", "history", "ledger", "audit")}
    return {**kept, "kept": round(sum(kept.values()), 1), "wal": round(float(written) / steps, 1)}


async def on_the_bus(on: Stack, runs: int) -> dict[str, float]:
    """Messages per step and bytes per message (subject, headers and payload) where functions run apart."""
    count: Counter[str] = Counter()

    async def hear(msg: Any) -> None:
        lane = msg.subject.split(".")[2]
        if lane in ("work", "fact", "in"):
            count[lane] += 1
            headers = sum(len(name) + len(value) + 4 for name, value in (msg.headers or {}).items())
            count[f"{lane} bytes"] += len(msg.subject) + headers + len(msg.data)

    listening = await nats.connect(on.running.nats.url)
    await listening.subscribe("agentflow.>", cb=hear)
    async with on.host(handoff=False) as host:
        await burst(host, on, "ten-steps", [{}] * runs)
    await listening.flush()
    await listening.close()
    found: dict[str, float] = {}
    for lane in ("work", "fact"):
        found[f"{lane} per step"] = round(count[lane] / runs / STEPS, 2)
        found[f"{lane} bytes each"] = round(count[f"{lane} bytes"] / max(1, count[lane]))
    return found


async def processes(on: Stack) -> dict[str, Any]:
    """Connections and memory of each function in a process of its own."""
    found = {}
    for name in FUNCTIONS:
        command = ["relay"] if name == "relay" else ["serve", name]
        environment = {
            "PATH": os.environ["PATH"], "AGENTFLOW_HTTP_PORT": "0", "AGENTFLOW_SANDBOX": "process",
            "AGENTFLOW_DATABASE_URL": on.running.url, "AGENTFLOW_NATS_URL": on.running.nats.url,
            "AGENTFLOW_HOME": str(on.settings.home), "AGENTFLOW_SCRIPT_DIR": str(on.settings.script_dir),
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agentflow", *command, env=environment, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        assert process.stdout is not None
        while b'"message":"ready"' not in (line := await process.stdout.readline()):
            assert line, f"{name} has ended"
        await asyncio.sleep(3)
        found[name] = {"connections": dict(await rows(on, CONNECTIONS)), **memory(process.pid)}
        process.terminate()
        await process.communicate()
    return found


def memory(pid: int) -> dict[str, int]:
    """MiB that a process has, and those that it shares with nobody."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    own = sum(int(said[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
    return {"rss_mib": int(said["Rss"].split()[0]) // KIB, "uss_mib": own // KIB}


def wordy() -> dict[str, Any]:
    """Ten steps, each of which is given 4 KiB and gives them back."""
    document = copy.deepcopy(ten_steps()) | {"name": "wordy", "input": {"text": "string"}}
    document["tasks"]["step"]["in"]["text"] = "text"
    return document


async def measure(runs: int) -> dict[str, Any]:
    async with stack() as on:
        for document in (ten_steps(), wordy()):
            await on.register(document)
        return {
            "runs": runs,
            "bytes per step": await grown(on, "ten-steps", runs, {}),
            "with 4 KiB in and out": await grown(on, "wordy", runs, {"text": os.urandom(2 * KIB).hex()}),
            "bus, apart": await on_the_bus(on, min(runs, 300)),
            "processes": await processes(on),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=2000)
    found = run(measure(parser.parse_args().runs))
    say(json.dumps(found, indent=1))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
