"""What a function finds out of order when it starts: it says so in one line, is not ready, and recovers by itself.

Real processes, as containers run them.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nats as nats_client
import orjson
import psycopg
import pytest
from house import eventually
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

import agentflow
from agentflow.config import Settings
from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.store.migrate import migrate
from agentflow.store.readiness import migrations
from agentflow.store.restored import restored


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Process:
    """One function, started with settings of its own."""

    def __init__(self, folder: Path, words: list[str], settings: dict[str, str]) -> None:
        self.port = free_port()
        self.log = folder / "log"
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(Path(agentflow.__file__).parents[1]),
            "PORT": str(self.port), "AGENTFLOW_HOME": str(folder),
        }  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agentflow", *words], env=environment | settings, stdout=log, stderr=log
            )

    async def readiness(self) -> tuple[int, str]:
        """What /readyz says: the status, and the reason."""
        assert self.process.poll() is None, self.log.read_text()
        async with httpx.AsyncClient() as client:
            try:
                answer = await client.get(f"http://127.0.0.1:{self.port}/readyz")
            except httpx.HTTPError:
                return 0, ""
        return answer.status_code, answer.json().get("reason", "")

    async def waits_for(self, pattern: str) -> None:
        """Not ready for this reason, and one line of the log says so."""

        async def seen() -> bool:
            status, reason = await self.readiness()
            assert status != 200, "it was ready"
            return re.search(pattern, reason) is not None

        try:
            await eventually(seen)
        except AssertionError:
            pytest.fail(f"{await self.readiness()}\n{self.log.read_text()}")
        lines = [orjson.loads(line) for line in self.log.read_text().splitlines()]
        told = [line for line in lines if re.search(pattern, line.get("reason", ""))]
        assert len(told) == 1, lines
        assert "\n" not in told[0]["reason"]

    async def becomes_ready(self) -> None:
        async def ready() -> bool:
            return (await self.readiness())[0] == 200

        await eventually(ready)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it has printed, once it has ended by itself."""
        return self.process.wait(20), self.log.read_text()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path, database: Any, nats: EmbeddedNats) -> Iterator[Start]:
    """Start a function with the machine's servers; settings that are given count instead."""
    made: list[Process] = []
    bus = nats.url

    def start(*words: str, **settings: str) -> Process:
        given = {
            "AGENTFLOW_DATABASE_URL": database.admin, "AGENTFLOW_NATS_URL": bus, "AGENTFLOW_SANDBOX": "process"
        }  # fmt: skip
        made.append(Process(tmp_path, list(words or ("serve", "dispatch")), given | settings))
        return made[-1]

    yield start
    for each in made:
        each.process.send_signal(signal.SIGTERM)
        try:
            each.process.wait(30)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()
            pytest.fail(f"it does not stop: {each.log.read_text()}")


@pytest.fixture
async def jetstream(nats: EmbeddedNats) -> AsyncIterator[JetStreamContext]:
    client = await nats_client.connect(nats.url)
    yield client.jetstream()
    await client.close()


# -- PostgreSQL ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("database")  # the roles are there: they belong to the server
async def test_a_database_without_a_schema_is_waited_for(start: Start, postgres: EmbeddedPostgres) -> None:
    name = "test_unready_empty"
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"create database {name}")
        try:
            process = start(AGENTFLOW_DATABASE_URL=postgres.dsn(database=name))
            await process.waits_for(r"schema is older than this program: there is none yet \(run `agentflow migrate`")
            await migrate(postgres.dsn(database=name))
            await process.becomes_ready()
            process.process.kill()
            process.process.wait()
        finally:
            admin.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("words", ["serve dispatch", "serve api", "relay", "serve run_tool --push"])
async def test_an_older_schema_is_waited_for(start: Start, database: Any, words: str) -> None:
    last = migrations()[-1].name
    with psycopg.connect(database.admin, autocommit=True) as admin:
        gone = "delete from agentflow_migrations where name = %s returning name, sha256"
        (row,) = admin.execute(gone, (last,)).fetchall()
        process = start(*words.split())
        await process.waits_for(rf"it lacks {last} \(run `agentflow migrate`")
        admin.execute("insert into agentflow_migrations (name, sha256) values (%s, %s)", row)
    await process.becomes_ready()


async def test_a_newer_schema_is_fine(start: Start, database: Any) -> None:
    """The next version is being rolled out beside this one."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("insert into agentflow_migrations (name, sha256) values ('9999_next.sql', '')")
    await start().becomes_ready()


async def test_a_schema_that_has_given_something_up_is_not_worked_with(start: Start, database: Any) -> None:
    """What this version uses may be gone: it says so until somebody deploys a version that knows."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("insert into agentflow_migrations (name, sha256, contract) values ('9999_less.sql', '', true)")
    await start().waits_for(r"newer than this program: .*9999_less.sql \(deploy a newer AgentFlow\)")


async def test_a_database_that_was_put_back_is_not_worked_with_blindly(start: Start, database: Any) -> None:
    """It knows nothing of what was done since the backup was made; somebody has to say that the other one rests."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("update agentflow_migrations set system = '1'")
    process = start()
    await process.waits_for(r"put back from a backup, or moved \(.* run `agentflow restored` once\)")
    await restored(database.admin, nothing_lost=True)
    await process.becomes_ready()


async def test_a_schema_that_is_not_shown_is_migrated_once_more(start: Start, database: Any) -> None:
    """As versions left it that did not look."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("revoke select on agentflow_migrations from agentflow_engine")
    process = start()
    await process.waits_for("it does not show its migrations")
    await migrate(database.admin)
    await process.becomes_ready()


async def test_a_server_that_is_away(start: Start) -> None:
    process = start(AGENTFLOW_DATABASE_URL=f"postgresql://127.0.0.1:{free_port()}/agentflow")
    await process.waits_for(r"PostgreSQL: .*Connection refused \(start it, or correct AGENTFLOW_DATABASE_URL\)")


async def test_a_role_that_may_not_come_in(start: Start, database: Any) -> None:
    """The API has a role of its own, of whose fault the engine's connection knows nothing."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute(f"revoke connect on database {database.name} from public")
        admin.execute(f"grant connect on database {database.name} to agentflow_engine")
        process = start("serve", "api")
        await process.waits_for("PostgreSQL: .*permission denied for database")
        admin.execute(f"grant connect on database {database.name} to agentflow_api")
    await process.becomes_ready()


# -- NATS ----------------------------------------------------------------------------------------------------


async def test_nats_that_comes_later(start: Start, nats: EmbeddedNats) -> None:
    url = nats.url
    nats.down()
    try:
        process = start(AGENTFLOW_NATS_URL=url)
        await process.waits_for(r"NATS can't be reached at 127.0.0.1:\d+: .*\(start it, or correct AGENTFLOW_NATS_URL")
    finally:
        nats.up()
    assert nats.url == url
    await process.becomes_ready()


async def test_a_wrong_password(start: Start, nats: EmbeddedNats) -> None:
    address = nats.url.rpartition("@")[2]
    process = start(AGENTFLOW_NATS_URL=f"nats://agentflow:wrong-password@{address}")
    await process.waits_for(r"NATS: .*Authorization Violation.* \(correct user and password in AGENTFLOW_NATS_URL\)")
    assert "wrong-password" not in process.log.read_text()


async def test_a_stream_with_another_storage_is_named(start: Start, jetstream: JetStreamContext) -> None:
    await jetstream.add_stream(
        StreamConfig(
            name="AGENTFLOW_WORK", subjects=["agentflow.*.work.>"], retention="interest", storage=StorageType.MEMORY
        )  # type: ignore[arg-type]
    )
    process = start()
    await process.waits_for(r"stream AGENTFLOW_WORK has .*storage memory, not file.*\(nats stream rm AGENTFLOW_WORK")
    await jetstream.delete_stream("AGENTFLOW_WORK")
    await process.becomes_ready()


async def test_a_stream_with_other_settings_is_set_right(start: Start, jetstream: JetStreamContext) -> None:
    """All but what the operator decides: here, how many bytes it may have."""
    await jetstream.add_stream(
        StreamConfig(name="AGENTFLOW_FACTS", subjects=["agentflow.one.fact.>"], max_age=60, max_bytes=1 << 30)
    )
    process = start()
    await process.becomes_ready()
    config = (await jetstream.stream_info("AGENTFLOW_FACTS")).config
    assert (config.subjects, config.max_age, config.max_bytes) == (["agentflow.*.fact.>"], 7 * 24 * 3600, 1 << 30)
    (told,) = [line for line in process.log.read_text().splitlines() if "a stream had other settings" in line]
    assert "max_age 60" in told


async def test_a_stream_of_somebody_else_that_takes_our_subjects(start: Start, jetstream: JetStreamContext) -> None:
    await jetstream.add_stream(StreamConfig(name="THEIRS", subjects=["agentflow.>"]))
    process = start()
    await process.waits_for(r"NATS: .*subjects overlap.* \(another stream takes our subjects")
    await jetstream.delete_stream("THEIRS")
    await process.becomes_ready()


async def test_a_consumer_with_other_settings(start: Start, jetstream: JetStreamContext) -> None:
    process = start()
    await process.becomes_ready()
    process.process.kill()
    await jetstream.delete_consumer("AGENTFLOW_WORK", "dispatch")
    other = ConsumerConfig(durable_name="dispatch", deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.ALL)
    await jetstream.add_consumer("AGENTFLOW_WORK", other)
    stream = (await jetstream.stream_info("AGENTFLOW_WORK")).created
    process = start()
    await process.becomes_ready()
    made = (await jetstream.consumer_info("AGENTFLOW_WORK", "dispatch")).config
    assert (made.deliver_policy, made.ack_policy) == (DeliverPolicy.ALL, AckPolicy.EXPLICIT)
    assert "a consumer had other settings" in process.log.read_text()
    assert (await jetstream.stream_info("AGENTFLOW_WORK")).created == stream


async def test_a_consumer_of_somebody_else_that_takes_what_clients_publish(
    start: Start, jetstream: JetStreamContext
) -> None:
    await jetstream.add_stream(
        StreamConfig(name="AGENTFLOW_IN", subjects=["agentflow.*.in.>"], retention="workqueue")  # type: ignore[arg-type]
    )
    await jetstream.add_consumer("AGENTFLOW_IN", ConsumerConfig(durable_name="theirs", ack_policy=AckPolicy.EXPLICIT))
    process = start("serve", "plan")
    await process.waits_for(r"consumer plan of AGENTFLOW_IN cannot be made.*remove the consumer that is in its way\)")
    await jetstream.delete_consumer("AGENTFLOW_IN", "theirs")
    await process.becomes_ready()


# -- the sandbox ---------------------------------------------------------------------------------------------


@pytest.mark.docker
async def test_a_sandbox_that_is_required_is_waited_for(start: Start, tmp_path: Path) -> None:
    """As in a container that was not given the engine's socket; then somebody gives it."""
    given, engine = tmp_path / "docker.sock", Settings.from_env().docker_host.removeprefix("unix://")
    needs = {"AGENTFLOW_SANDBOX": "auto", "AGENTFLOW_SANDBOX_REQUIRED": "true", "DOCKER_HOST": f"unix://{given}"}
    process = start("serve", "run_tool", **needs)
    await process.waits_for(r"there is no Docker engine at unix://.* \(a container needs .*DOCKER_GID")
    given.symlink_to(engine)
    await process.becomes_ready()
    said = process.log.read_text()
    assert re.search(r'"driver":"(gvisor|docker)".*"sandbox for tools"', said), said


async def test_who_waits_for_a_sandbox_can_be_ended(start: Start, tmp_path: Path) -> None:
    needs = {"AGENTFLOW_SANDBOX": "auto", "AGENTFLOW_SANDBOX_REQUIRED": "true"}
    process = start("serve", "run_tool", **needs, DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
    await process.waits_for("there is no Docker engine")
    process.process.send_signal(signal.SIGTERM)
    code, said = process.end()
    assert code == 0 and "Traceback" not in said


# -- the environment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"AGENTFLOW_DATABASE_URL": ""}, r"AGENTFLOW_DATABASE_URL: there is no database \(set it"),
        ({"AGENTFLOW_DATABASE_URL": "mysql://db/x"}, r"AGENTFLOW_DATABASE_URL: is not a PostgreSQL URL \(e\.g\."),
        ({"AGENTFLOW_NATS_URL": ""}, r"AGENTFLOW_NATS_URL: there is no NATS \(set it"),
        ({"AGENTFLOW_NATS_URL": "http://nats:4222"}, r"AGENTFLOW_NATS_URL: is not a NATS URL \(e\.g\."),
        ({"AGENTFLOW_BATHC": "3"}, r"AGENTFLOW_BATHC: unknown setting \(see"),
        ({"AGENTFLOW_CALLS": "many"}, r"AGENTFLOW_CALLS: must be a number, not 'many' \("),
        ({"PORT": "http"}, r"PORT: must be a number, not 'http' \("),
        ({"AGENTFLOW_AUDIT_KEY": "short"}, r"AGENTFLOW_AUDIT_KEY: a key has 5 bytes \("),
        ({"AGENTFLOW_LLM_API_KEY": "secret://file/nowhere"}, r"AGENTFLOW_LLM_API_KEY: .*\(mount the secret"),
        ({"AGENTFLOW_SANDBOX": "vm"}, r"AGENTFLOW_SANDBOX: unknown driver 'vm' \(set it to auto"),
        ({"AGENTFLOW_PUSH": "1", "AGENTFLOW_HTTP_HOST": "0.0.0.0"},
         r"AGENTFLOW_PUSH_KEY: there is no key to the push door at 0\.0\.0\.0 \(set it .*AGENTFLOW_PUSH_OPEN=1"),
        ({"AGENTFLOW_PUSH_KEY": "short", "AGENTFLOW_PUSH": "1"}, r"AGENTFLOW_PUSH_KEY: key 1 has to be 32 or more"),
        ({"AGENTFLOW_PUSH_KEY": "short", "AGENTFLOW_FUNCTION": "bridge", "AGENTFLOW_FUNCTION_URLS": "http://{function}"},
         r"AGENTFLOW_PUSH_KEY: key 1 has to be 32 or more .*\("),
        ({"AGENTFLOW_METRICS_KEY": "short"}, r"AGENTFLOW_METRICS_KEY: key 1 has to be 32 or more .*\("),
        ({"AGENTFLOW_FUNCTION": "dispach"}, r"AGENTFLOW_FUNCTION: there is no function 'dispach' \(there are: plan,"),
        ({"AGENTFLOW_FUNCTION": ""}, r"no function to serve \(name it"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_ends_the_process_with_one_line(start: Start, settings: dict[str, str], said: str) -> None:
    """Nothing outside can mend its environment: whoever runs it starts it anew, with another one."""
    code, printed = start("serve", **({"AGENTFLOW_FUNCTION": "run_tool"} | settings)).end()
    lines = [line for line in printed.splitlines() if not line.startswith("{")]
    assert code == 1
    assert len(lines) == 1
    assert re.match(f"error: {said}", lines[0]), lines


async def test_an_image_serves_the_function_that_it_is_for(start: Start) -> None:
    await start("serve", AGENTFLOW_FUNCTION="account-cost").becomes_ready()


async def test_an_image_of_the_relay_serves_it(start: Start) -> None:
    process = start("serve", AGENTFLOW_FUNCTION="relay")
    await process.becomes_ready()
    await eventually(lambda: _truth("keeps the gate" in process.log.read_text()))


async def _truth(value: bool) -> bool:
    return value


