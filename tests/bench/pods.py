"""Cold starts of pods: every image as the rendered manifests have it, from nothing to its first answered event.

Each function is at zero; a run comes, and wakes one after the other. For each: from `docker run` until its process
runs, from then until its readiness probe succeeds (asked ten times a second), and until its first event is answered.
What Kubernetes adds to that (scheduling, pulling an image, its network) is not in it.

    python tests/bench/pods.py [--starts 5] [--tag dev]

Needs root, an engine, kustomize and the images (make images).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from deploy.cluster import Cluster, cluster
from deploy.test_revisions import ASK
from house import eventually


async def once(running: Cluster, api: Any) -> None:
    """One run, with every function at zero."""
    await asyncio.gather(*(each.scale(0) for each in running.revisions.values()))
    answer = await api.post("/v1/runs", json={"workflow": "ask", "input": {"who": "x"}})
    url = f"/v1/runs/{answer.raise_for_status().json()['id']}"

    async def ended() -> bool:
        run = (await api.get(url)).json()
        assert run["status"] not in ("failed", "cancelled"), run
        return bool(run["status"] == "succeeded" and all(each.backends for each in running.revisions.values()))

    await eventually(ended, within_s=90)
    await eventually(lambda: all(each.started[-1].answered_at for each in running.revisions.values()))


async def measure(starts: int, tag: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        async with cluster(Path(folder), tag) as running, running.api() as api:
            (await api.post("/v1/workflows", json=ASK)).raise_for_status()
            for _ in range(starts):
                await once(running, api)
            found = {}
            for name, revision in running.revisions.items():
                pods = revision.started[-starts:]
                found[name] = {
                    "engine_ms": p50([pod.running_at - pod.asked_at for pod in pods]),
                    "ready_ms": p50([pod.ready_at - pod.running_at for pod in pods]),
                    "answered_ms": p50([pod.answered_at - pod.running_at for pod in pods]),
                }
                print(f"{name:13} {found[name]}", file=sys.stderr)
    return found


def p50(seconds: list[float]) -> int:
    return round(statistics.median(seconds) * 1000)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--tag", default="dev")
    given = parser.parse_args()
    functions = asyncio.run(measure(given.starts, given.tag))
    print(json.dumps({"row": "pods", "starts": given.starts, "functions": functions}))
