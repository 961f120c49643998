"""What infra/knative comes to, on a Docker network: every pod of the rendered dev overlay, in the stand-in's hands.

Postgres and NATS run with TLS under the names that the settings have, with infra/nats/nats.conf; the Secrets are those
of the walk-through. The ingress, the activator and queue-proxy are queue_proxy.py, listening where the functions' names
lead; the model that is called is there, too, and counts.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import tls_door
from certificates import Authority
from house import eventually
from infra.manifests import KNATIVE, Manifest, manifests, of_kind, rendered, services
from starlette.requests import Request
from starlette.responses import JSONResponse

from agentflow.runtime.preparation import ROLES
from agentflow.runtime.serve import http_server
from agentflow.store.admin import create_tenant, issue_key

from .conftest import BASE, ROOT, SERVERS, inspect
from .pods import Container, Spec, docker, spec_of
from .queue_proxy import Revision, by_host

POSTGRES, NATS = (f"{name}.agentflow-data.svc.cluster.local" for name in ("postgres", "nats"))
FUNCTION = "{}.agentflow.svc.cluster.local"
MODELS = "models.agentflow-data.svc.cluster.local"
POSTGRES_USER = 999
READY_S = 120  # longest that a pod may take here until it is ready; on a cluster it may wait for ever
PEPPER = "pepper-of-the-cluster"
MODELS_YAML = f"""
providers: {{far: {{base_url: "http://{MODELS}/v1"}}}}
models: {{small: {{provider: far, model: far, input_usd_per_mtok: 1, output_usd_per_mtok: 1}}}}
"""


@dataclass
class FarSide:
    """The model: answers after ``takes_s``, and knows what it was asked, how often."""

    takes_s: float = 0.05
    asked: Counter[str] = field(default_factory=Counter)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        told = await Request(scope, receive).json()
        self.asked[told["messages"][-1]["content"]] += 1
        await asyncio.sleep(self.takes_s)
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        message = {"role": "assistant", "content": "said"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        reply = {"id": "1", "object": "chat.completion", "created": 1, "model": "far", "choices": choices}
        await JSONResponse(reply | {"usage": usage})(scope, receive, send)


@dataclass
class Cluster:
    """A running installation."""

    network: str
    folder: Path
    tag: str
    found: list[Manifest]
    hosts: dict[str, str] = field(default_factory=dict)
    revisions: dict[str, Revision] = field(default_factory=dict)
    deployments: dict[str, Container] = field(default_factory=dict)
    far: FarSide = field(default_factory=FarSide)
    administrator: str = ""  # DSN, from here
    nats: str = ""  # address, from here
    key: str = ""

    def spec(self, name: str) -> Spec:
        """What the manifest of a Service, Deployment or Job comes to."""
        kinds = (*of_kind(self.found, "Deployment"), *of_kind(self.found, "Job"), *services(self.found).values())
        (manifest,) = [each for each in kinds if each["metadata"]["name"] == name]
        return spec_of(manifest, self.found, self.folder / "secrets", self.tag)

    def pod(self, name: str) -> Container:
        return Container(self.spec(name), self.network, self.hosts)

    async def run(self, image: str, *options: str, args: Sequence[str]) -> str:
        """Start a server; its address."""
        common = ("run", "--detach", f"--network={self.network}", f"--label={self.network}", "--cap-drop=ALL")
        (made,) = await asyncio.to_thread(inspect, (await docker(*common, *options, image, *args)).strip())
        address: str = made["NetworkSettings"]["Networks"][self.network]["IPAddress"]
        return address

    async def run_job(self, name: str) -> None:
        """Run a Job to its end."""
        job = self.pod(name)
        await job.start()
        assert await job.exit_code() == 0, await job.log()

    def api(self) -> httpx.AsyncClient:
        """A client of the API, through the ingress."""
        headers = {"authorization": f"Bearer {self.key}", "host": FUNCTION.format("api")}
        return httpx.AsyncClient(base_url=f"http://{self.hosts[MODELS]}", headers=headers, timeout=90, trust_env=False)


@asynccontextmanager
async def cluster(folder: Path, tag: str) -> AsyncIterator[Cluster]:
    """The overlay for development, up, with every function at zero; nothing is left of it afterwards."""
    made = Cluster(f"agentflow-cluster-{os.getpid()}", folder, tag, manifests(rendered(KNATIVE / "overlays" / "dev")))
    (folder / "secrets").mkdir()
    await docker("network", "create", made.network)
    try:
        (network,) = await asyncio.to_thread(inspect, made.network)
        gateway = network["IPAM"]["Config"][0]["Gateway"]
        made.hosts = {FUNCTION.format(name): gateway for name in services(made.found)} | {MODELS: gateway}
        await _servers(made)
        await made.run_job("migrate")
        tenant = await create_tenant(made.administrator, "acme")
        made.key = str(await issue_key(made.administrator, tenant, PEPPER))
        made.revisions = {name: _revision(made, name) for name in services(made.found)}
        ingress = by_host({FUNCTION.format(n): r for n, r in made.revisions.items()} | {MODELS: made.far})
        async with http_server(ingress, gateway, 80):
            made.deployments = {each["metadata"]["name"]: made.pod(each["metadata"]["name"])
                                for each in of_kind(made.found, "Deployment")}  # fmt: skip
            await asyncio.gather(*map(_up, made.deployments.values()))
            yield made
    finally:
        await asyncio.gather(*(revision.close() for revision in made.revisions.values()))
        left = (await docker("ps", "--all", "--quiet", f"--filter=label={made.network}")).split()
        if left:
            await docker("rm", "--force", "--volumes", *left)
        await docker("network", "rm", made.network)


def _revision(made: Cluster, name: str) -> Revision:
    spec = made.spec(name)
    return Revision(lambda: made.pod(name), concurrency=spec.concurrency, timeout_s=spec.timeout_s)


async def _up(container: Container) -> None:
    await container.start()
    await eventually(container.ready, within_s=READY_S)


async def _servers(made: Cluster) -> None:
    """Postgres and NATS, and the Secrets that lead to them."""
    authority = Authority()
    words = {name: uuid4().hex for name in ("postgres", "engine", *ROLES)}
    authority.write(made.folder / "postgres", POSTGRES, owner=65532)
    authority.write(made.folder / "nats", NATS, owner=65532)
    secrets = {
        "agentflow-administrator": {"pgpass": f"{POSTGRES}:5432:agentflow:postgres:{words['postgres']}\n"},
        "agentflow-database": {
            "ca.crt": authority.certificate.decode(),
            "pgpass": "".join(f"{POSTGRES}:5432:agentflow:{role}:{words[role]}\n" for role in ROLES),
        },
        "agentflow-keys": {
            "nats-ca.crt": authority.certificate.decode(), "nats-url": f"tls://engine:{words['engine']}@{NATS}:4222\n",
            "models.yaml": MODELS_YAML, "pepper": PEPPER, "audit": uuid4().hex,
        },
        "agentflow-push": {"AGENTFLOW_PUSH_KEY": uuid4().hex},
    }  # fmt: skip
    for name, files in secrets.items():
        (made.folder / "secrets" / name).mkdir()
        for file, content in files.items():
            (made.folder / "secrets" / name / file).write_text(content)
    postgres, nats = await asyncio.gather(
        made.run(
            SERVERS[0], f"--user={POSTGRES_USER}:{POSTGRES_USER}", "--shm-size=128m", "--stop-signal=SIGINT",
            "--tmpfs=/var/lib/postgresql:mode=1777", "--tmpfs=/var/run/postgresql:uid=999,gid=999,mode=0755",
            f"--env=POSTGRES_PASSWORD={words['postgres']}", "--env=POSTGRES_DB=agentflow", args=["postgres"],
        ),
        made.run(
            SERVERS[1], f"--network-alias={NATS}", "--user=65532:65532", "--tmpfs=/data:mode=1777",
            f"--volume={ROOT / 'infra/nats/nats.conf'}:/etc/nats/nats.conf:ro",
            f"--volume={made.folder / 'nats'}:/etc/nats/tls:ro", f"--env=NATS_ENGINE_PASSWORD={words['engine']}",
            *(f"--env=NATS_{name}_PASSWORD={uuid4().hex}" for name in ("SYS", "ACME", "GLOBEX")),
            args=["--config", "/etc/nats/nats.conf"],
        ),
    )  # fmt: skip
    # The stand-in for PostgreSQL's image knows no TLS: what functions reach is a door before it that does.
    door = await made.run(
        BASE, f"--network-alias={POSTGRES}", "--user=65532:65532", f"--volume={made.folder / 'postgres'}:/tls:ro",
        f"--volume={Path(tls_door.__file__)}:/tls_door.py:ro",
        args=["python3", "/tls_door.py", "5432", postgres, "5432", "/tls"],
    )  # fmt: skip
    made.administrator = f"postgresql://postgres:{words['postgres']}@{postgres}/agentflow"
    made.nats = nats
    await eventually(lambda: all(map(_listens, (postgres, door, nats), (5432, 5432, 4222))), within_s=30)


def _listens(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
