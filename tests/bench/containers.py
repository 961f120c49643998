"""Cold starts of containers: from the engine's start of a function's container to the first event it has handled.

Needs the stack of local/compose.yaml (`make up`); stops and starts one function after the other.

    python tests/bench/containers.py [--starts 5] [--functions plan,dispatch]

A run is submitted while the function is away, so that its event waits for it; what counts is from the time at which the
engine has started the process (its StartedAt) to what the database says when the event was handled. Both are the clock
of this machine. Prints one JSON line at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]
COMPOSE = ("docker", "compose", "--file", str(ROOT / "local/compose.yaml"))
# What says that the function has handled the run's event.
HANDLED = {
    "plan": "select min(at) from agentflow.history where run_id = '{run}' and name = 'run.planned'",
    "dispatch": "select min(at) from agentflow.history where run_id = '{run}' and name = 'run.started'",
    "run_tool": "select min(completed_at) from agentflow.steps where run_id = '{run}' and status = 'succeeded'",
    "invoke_llm": "select max(completed_at) from agentflow.steps where run_id = '{run}' and step = 1",
    "account_cost": "select max(at) from agentflow.ledger where run_id = '{run}' and entry <> 'hold'",
}
ECHO: dict[str, Any] = {
    "agentflow": "plan/v1", "name": "cold-echo", "limits": {"steps": 1, "usd": 0.01},
    "tasks": {"echo": {"kind": "tool", "use": "std.echo", "in": {"n": "1"}}}, "root": {"task": "echo"},
}  # fmt: skip
# hello.model.yaml answers after 150 ms, which are taken off.
GREET: dict[str, Any] = {
    "agentflow": "plan/v1", "name": "cold-greet", "limits": {"steps": 1, "usd": 0.01},
    "tasks": {"greet": {
        "kind": "llm", "use": "small", "in": {}, "prompt": "Greet Ada; mention its 3 letters.", "max_tokens": 50,
    }}, "root": {"task": "greet"},
}  # fmt: skip
MODEL_MS = 150


def compose(*words: str) -> str:
    return subprocess.run([*COMPOSE, *words], check=True, capture_output=True, text=True).stdout


def sql(text: str) -> str:
    psql = ("psql", "-h", "/var/run/postgresql", "-U", "postgres", "-d", "agentflow", "-qtAc", text)
    return compose("exec", "-T", "postgres", *psql).strip()


def started_at(service: str) -> float:
    (container,) = compose("ps", "--all", "--quiet", service).split()
    seen = json.loads(subprocess.run(["docker", "inspect", container], check=True, capture_output=True).stdout)[0]
    text = seen["State"]["StartedAt"]
    return datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00").timestamp()


def once(client: httpx.Client, function: str) -> float:
    """Milliseconds of one cold start."""
    workflow = "cold-greet" if function in ("invoke_llm", "account_cost") else "cold-echo"
    compose("stop", function)
    run = client.post("/v1/runs", json={"workflow": workflow, "input": {}}).raise_for_status().json()["id"]
    time.sleep(1.5)  # whatever comes before it is over
    compose("start", function)
    began = started_at(function)
    question = f"select extract(epoch from ({HANDLED[function].format(run=run)}))"
    deadline = time.monotonic() + 30
    while not (answer := sql(question)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{function} has not handled run {run}")
        time.sleep(0.2)
    took = (float(answer) - began) * 1000
    return took - MODEL_MS if function == "invoke_llm" else took


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--functions", default=",".join(HANDLED))
    given = parser.parse_args()
    key = compose("exec", "-T", "api", "cat", "/var/lib/agentflow/api_key").strip()
    url = f"http://{compose('port', 'api', '8080').strip()}"
    found = {}
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        for document in (ECHO, GREET):
            client.post("/v1/workflows", json=document).raise_for_status()
        for function in given.functions.split(","):
            times = [once(client, function) for _ in range(given.starts)]
            middle, most = round(statistics.median(times)), round(max(times))
            found[function] = {"p50_ms": middle, "most_ms": most}
            print(f"{function:13} p50 {middle} ms, most {most} ms", file=sys.stderr)
    print(json.dumps({"row": "containers", "starts": given.starts, "functions": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
