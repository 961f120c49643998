"""Three servers of NATS with passwords, as local/nats-cluster.conf has them: whichever is lost, our bus goes on, with
what it sends and with what it takes in. And what a list of servers may look like."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import nats.errors
import nats.js.errors
import orjson
import pytest
from house import bus_of, eventually

from agentflow.bus.jetstream import JetStream
from agentflow.bus.parts import Delivered
from agentflow.bus.readiness import unready
from agentflow.bus.servers import Servers, servers
from agentflow.errors import Rejected, RetryLater
from agentflow.wire.event import Event
from agentflow.wire.streams import STREAMS, consumers_of

LOCAL = Path(__file__).parents[2] / "local"
PASSWORD = "p@ss,w%40rd/x"
COUNT = 3
(PLAN,) = (each for each in consumers_of("plan") if each.stream == next(s.name for s in STREAMS if s.lane == "in"))
SUBJECT = f"agentflow.{uuid4()}.in.order"


@dataclass
class Cluster:
    """Three servers, by the ports where they take clients."""

    home: Path
    clients: list[int]
    processes: dict[int, subprocess.Popen[bytes]]

    def url(self, *ports: int) -> str:
        return f"nats://agentflow:{quote(PASSWORD, safe='')}@" + ",".join(f"127.0.0.1:{port}" for port in ports)

    def begin(self, port: int) -> None:
        folder, program = self.home / str(port), Path(sysconfig.get_path("scripts")) / "nats-server"
        with (folder / "log").open("ab") as log:
            self.processes[port] = subprocess.Popen(
                [program, "-c", folder / "nats-cluster.conf", "--name", f"nats-{port}"], stdout=log, stderr=log
            )

    def lose(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Our files, of which only the places are changed, and the password."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2 * COUNT)]
    ports = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    made = Cluster(tmp_path, ports[:COUNT], {})
    names = dict(zip(("nats:6222", "nats-2:6222", "nats-3:6222"), (f"127.0.0.1:{port}" for port in ports[COUNT:]),
                     strict=True))  # fmt: skip
    for client, peer in zip(made.clients, ports[COUNT:], strict=True):
        folder = tmp_path / str(client)
        folder.mkdir()
        places = {
            "http_port: 8222": "", "port: 4222": f'listen: "127.0.0.1:{client}"',
            "port: 6222": f'listen: "127.0.0.1:{peer}"', "/data": str(folder / "data"),
            "$NATS_PASSWORD": f'"{PASSWORD}"',
        } | {f"nats-route://{name}": f"nats-route://{place}" for name, place in names.items()}  # fmt: skip
        for name in ("nats.conf", "nats-cluster.conf"):
            text = (LOCAL / name).read_text()
            for was, now in places.items():
                text = text.replace(was, now)
            (folder / name).write_text(text)
        made.begin(client)
    yield made
    for process in made.processes.values():
        process.kill()
        process.wait()


async def opened(url: str) -> JetStream:
    return await bus_of(url, within_s=60, replicas=COUNT)


@contextlib.asynccontextmanager
async def taking(bus: JetStream) -> AsyncIterator[set[int]]:
    """What comes in for plan, by its number, until the bus is closed."""
    taken: set[int] = set()

    async def take(message: Delivered) -> None:
        taken.add(orjson.loads(message.data)["data"]["number"])
        await message.ack()

    await bus.pull(PLAN, take, limit=8)
    yield taken
    await bus.close()


async def sent(bus: JetStream, number: int) -> None:
    """Send until a stream has it, as the relay does."""
    event = Event(id=str(uuid4()), source="/tests", type="com.example.order", data={"number": number})
    for tries in range(1000):
        with contextlib.suppress(RetryLater, TimeoutError, nats.errors.Error, nats.js.errors.Error):
            await asyncio.wait_for(await bus.send([event], SUBJECT, tries=tries), 3)
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"{number} was not taken")


def connected_to(bus: JetStream) -> int:
    url = bus._nc.connected_url
    assert url is not None and url.port is not None
    return url.port


@pytest.mark.parametrize("named", [1, COUNT], ids=["one_named", "all_named"])
async def test_the_bus_goes_on_without_the_server_it_was_connected_to(cluster: Cluster, named: int) -> None:
    """The others are named, too, or were only heard of: they want the same password."""
    bus = await opened(cluster.url(*cluster.clients[:named]))
    async with taking(bus) as taken:
        await sent(bus, 0)
        await eventually(lambda: taken == {0})
        for number in (1, 2):
            lost = connected_to(bus)
            cluster.lose(lost)
            await eventually(lambda lost=lost: bus.connected and connected_to(bus) != lost, within_s=30)
            assert bus.trouble == ""
            await asyncio.wait_for(sent(bus, number), 60)
            await eventually(lambda number=number: number in taken)
            cluster.begin(lost)


async def test_a_start_finds_the_servers_that_are_there_and_each_of_them_wants_the_password(cluster: Cluster) -> None:
    await (await opened(cluster.url(*cluster.clients))).close()
    cluster.lose(cluster.clients[0])
    bus = await opened(cluster.url(*cluster.clients))
    await sent(bus, 0)
    await bus.close()
    # Of those that are there: what is said of a list is what the last one said, and the client asks them in any order.
    bus = JetStream(cluster.url(*cluster.clients[1:]).replace("p%40ss", "p%41ss"))
    with pytest.raises(RetryLater, match=r"Authorization Violation.*correct user and password") as refused:
        await bus.open()
    assert "ss%2C" not in str(refused.value)
    await bus.close()


# -- the setting -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("nats://nats:4222", Servers(("nats://nats:4222",))),
        ("nats", Servers(("nats://nats",))),
        ("nats://u:p%40%2C%2F%25@a:1,b:2", Servers(("nats://a:1", "nats://b:2"), "u", "p@,/%")),
        ("tls://u:@a,b", Servers(("tls://a", "tls://b"), "u", "")),
        ("nats://u:p@a:1, tls://u:p@b:2", Servers(("nats://a:1", "tls://b:2"), "u", "p")),
        ("tls://word%3A1@[::1]:4222,[::2]", Servers(("tls://[::1]:4222", "tls://[::2]"), token="word:1")),
        ("wss://u:p@a:443/nats,b/nats", Servers(("wss://a:443/nats", "wss://b/nats"), "u", "p")),
    ],
)
def test_servers_are_named_behind_commas(setting: str, found: Servers) -> None:
    assert servers(setting) == found


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("http://nats:4222", "is not a NATS URL"),
        ("nats://nats:4222,http://nats:4222", "is not a NATS URL"),
        ("nats://nats:4222,", "has a server without a name"),
        ("nats://u:secret@", "has a server without a name"),
        ("nats://u:sec,ret@nats:4222", "a port that is no number"),
        ("nats://nats:many", "a port that is no number"),
        ("nats://u:secret@a,nats://u:secret2@b", "names several users or passwords"),
        ("nats://a,wss://b", "names websockets beside others"),
    ],
)
def test_what_is_no_list_of_servers_is_said_in_one_line(setting: str, said: str) -> None:
    with pytest.raises(Rejected, match=rf"^AGENTFLOW_NATS_URL: .*{said}.*\(e\.g\. nats://") as refused:
        JetStream(setting)
    assert not any(word in str(refused.value) for word in ("secret", "sec,ret"))


def test_whoever_reads_that_none_is_there_reads_no_password() -> None:
    said = str(unready(ConnectionError("refused"), "nats://u:secret@a:1,b:2"))
    assert "can't be reached at a:1,b:2: refused" in said and "secret" not in said
