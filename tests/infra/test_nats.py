"""infra/nats/nats.conf on a real server: TLS that is checked, tenants that reach nothing but their own."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from house import eventually
from nats.aio.client import Client

from agentflow.bus.jetstream import JetStream
from agentflow.errors import Rejected, RetryLater

NATS = Path(__file__).parents[2] / "infra" / "nats"
CONF = NATS / "nats.conf"
ACME, GLOBEX = "1f0c9a52-5f7e-4b60-9c2b-6f4f6f0a0001", "2b7d1e34-8a90-4d0f-8f35-0f2c5b7a0002"
WORDS = {f"NATS_{name}_PASSWORD": f"word-of-{name.lower()}" for name in ("SYS", "ENGINE", "ACME", "GLOBEX")}


def certificates(folder: Path, require: Any) -> None:
    """An authority, and the server's certificate signed by it."""
    require(shutil.which("openssl"), "openssl")
    key = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-x509"]
    name = ["-addext", "basicConstraints=critical,CA:TRUE", "-subj", "/CN=test authority"]
    subprocess.run([*key, *name, "-keyout", "ca.key", "-out", "ca.crt"], cwd=folder, check=True, capture_output=True)
    own = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    by = ["-CA", "ca.crt", "-CAkey", "ca.key"]
    subprocess.run([*key, *own, *by, "-keyout", "tls.key", "-out", "tls.crt"], cwd=folder, check=True,
                   capture_output=True)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, require: Any) -> Iterator[tuple[int, Path]]:
    """A server with our configuration, of which only the places are changed: (its port, the authority's file)."""
    folder = tmp_path_factory.mktemp("nats")
    certificates(folder, require)
    with started(folder, folder) as port:
        yield port, folder / "ca.crt"


@contextmanager
def started(folder: Path, tls: Path) -> Iterator[int]:
    """The server, with its files in a folder and its certificate in another; its port."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, monitor = one.getsockname()[1], two.getsockname()[1]
    text = CONF.read_text()
    for was, now in (
        ("0.0.0.0:4222", f"127.0.0.1:{port}"),
        ("0.0.0.0:8222", f"127.0.0.1:{monitor}"),
        ("/etc/nats/tls", str(tls)),
        ("/data", str(folder / "data")),
    ):
        assert was in text
        text = text.replace(was, now)
    (folder / "nats.conf").write_text(text)
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "-c", folder / "nats.conf", "--pid", folder / "pid"],
                                   env={**os.environ, **WORDS}, stdout=log, stderr=log)  # fmt: skip
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail((folder / "log").read_text())
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def reloading(tls: Path, pid: Path) -> Iterator[Path]:
    """reload.sh, as beside a server; what it says."""
    path = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    places = {"TLS": str(tls), "PID_FILE": str(pid), "EVERY_S": "0.1"}
    said = pid.with_name("reload.log")
    with said.open("wb") as log:
        process = subprocess.Popen(["sh", NATS / "reload.sh"], env={"PATH": path, **places}, stdout=log)
    try:
        yield said
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture
async def engine(server: tuple[int, Path]) -> AsyncIterator[JetStream]:
    bus = JetStream(url(server, "engine"), ca=str(server[1]))
    await bus.open()
    yield bus
    await bus.close()


def url(server: tuple[int, Path], user: str) -> str:
    return f"tls://{user}:word-of-{user}@localhost:{server[0]}"


async def client(server: tuple[int, Path], user: str, **options: Any) -> tuple[Client, list[str]]:
    """A tenant's connection, and what the server has denied it."""
    denied: list[str] = []

    async def heard(fault: Exception) -> None:
        denied.append(str(fault))

    trusting = ssl.create_default_context(cafile=str(server[1]))
    options |= {"tls": trusting, "error_cb": heard, "inbox_prefix": f"_INBOX_{user}"}
    return await nats.connect(url(server, user), **options), denied


async def waiting(bus: JetStream) -> list[tuple[str, bytes]]:
    """What has arrived for `plan`."""
    js = bus._js
    assert js is not None
    sub = await js.pull_subscribe("", durable="plan", stream="AGENTFLOW_IN")
    found = []
    try:
        for msg in await sub.fetch(10, timeout=1):
            found.append((msg.subject, msg.data))
            await msg.ack()
    except TimeoutError:
        pass
    return found


async def test_the_functions_make_their_streams_and_say_whom_they_do_not_trust(
    server: tuple[int, Path], engine: JetStream
) -> None:
    assert engine.connected
    untrusting = JetStream(url(server, "engine"))
    with pytest.raises(RetryLater, match=r"certificate verify failed.*AGENTFLOW_NATS_CA"):
        await untrusting.open(wait_s=1)
    await untrusting.close()
    with pytest.raises(Rejected, match="AGENTFLOW_NATS_CA"):
        await JetStream(url(server, "engine"), ca="/nowhere.crt").open()


async def test_a_tenant_publishes_and_hears_its_own_and_no_others(server: tuple[int, Path], engine: JetStream) -> None:
    acme, denied = await client(server, "acme")
    heard: list[str] = []

    async def hear(msg: Any) -> None:
        heard.append(msg.subject)

    await acme.subscribe(f"agentflow.{ACME}.fact.>", cb=hear)
    await acme.publish(f"agentflow.{ACME}.in.order", b"{}")
    drop = "$JS.API.STREAM.DELETE.AGENTFLOW_IN"
    for forbidden in (f"agentflow.{GLOBEX}.in.order", f"agentflow.{ACME}.work.dispatch", drop):
        await acme.publish(forbidden, b"{}")
    await acme.subscribe("agentflow.>")
    await acme.subscribe(f"agentflow.{GLOBEX}.fact.>")
    await acme.flush()
    await eventually(lambda: len(denied) >= 5)
    assert engine._nc is not None
    await engine._nc.publish(f"agentflow.{ACME}.fact.run.completed", b"{}")
    await engine._nc.publish(f"agentflow.{GLOBEX}.fact.run.completed", b"{}")
    await eventually(lambda: heard)
    assert heard == [f"agentflow.{ACME}.fact.run.completed"]
    assert await waiting(engine) == [(f"agentflow.{ACME}.in.order", b"{}")]
    await acme.close()


async def test_a_tenant_with_an_account_of_its_own_names_nobody(server: tuple[int, Path], engine: JetStream) -> None:
    globex, denied = await client(server, "globex")
    heard: list[str] = []

    async def hear(msg: Any) -> None:
        heard.append(msg.subject)

    await globex.subscribe("fact.>", cb=hear)
    await globex.subscribe("agentflow.>", cb=hear)
    answer = await globex.request("in.order", b"{}", timeout=2)  # acknowledged by the stream: it is on disk
    assert b"AGENTFLOW_IN" in answer.data
    await globex.publish(f"agentflow.{ACME}.in.order", b"{}")
    await globex.flush()
    assert engine._nc is not None
    await engine._nc.publish(f"agentflow.{GLOBEX}.fact.run.completed", b"{}")
    await engine._nc.publish(f"agentflow.{ACME}.fact.run.completed", b"{}")
    await eventually(lambda: "fact.run.completed" in heard)
    assert set(heard) <= {"fact.run.completed", f"agentflow.{ACME}.in.order"}  # the latter is its own account's
    assert await waiting(engine) == [(f"agentflow.{GLOBEX}.in.order", b"{}")]
    assert denied == []
    await globex.close()


async def test_a_renewed_certificate_is_served_and_nobody_is_sent_away(tmp_path: Path, require: Any) -> None:
    """reload.sh beside the server, which would serve the former certificate until it is started again."""
    for name in ("first", "renewed"):
        (tmp_path / name).mkdir()
        certificates(tmp_path / name, require)
    tls = tmp_path / "..data"  # as the kubelet has it: another folder under the same name, at once
    tls.symlink_to("first")
    with started(tmp_path, tls) as port:
        bus = JetStream(url((port, tls), "engine"), ca=str(tmp_path / "first" / "ca.crt"))
        await bus.open()
        (tmp_path / "new").symlink_to("renewed")
        (tmp_path / "new").replace(tls)
        renewed = (port, tmp_path / "renewed" / "ca.crt")

        async def served() -> bool:
            try:
                connection, _ = await client(renewed, "acme", max_reconnect_attempts=0, allow_reconnect=False)
            except (OSError, ssl.SSLError, nats.errors.Error):
                return False
            await connection.close()
            return True

        assert not await served()
        with reloading(tls, tmp_path / "pid") as said:
            await eventually(served, within_s=15)
            assert bus.connected
            (tls / "tls.crt").write_bytes((tls / "tls.crt").read_bytes() + b"\n")
            await eventually(lambda: said.read_text().count("told the server") == 2)
        await bus.close()
