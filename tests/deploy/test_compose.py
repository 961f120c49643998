"""The stack of local/compose.yaml, as people run it: it does its work, loses nothing, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from agentflow.terminal.loading import compile_file

from .conftest import ASK, BASE, ROOT, Stack, run

pytestmark = [pytest.mark.docker("runsc"), pytest.mark.xdist_group("deploy")]
FUNCTIONS = ("plan", "dispatch", "account_cost", "invoke_llm", "run_tool", "relay", "api")
SERVERS = ("postgres", "nats")
ONCE = ("init", "nats-volume")  # containers that do their work at the start, and end
ENDS = ("succeeded", "failed", "cancelled")
ARRIVED = "com.example.visitor.arrived"
SLOW = {
    "agentflow": "plan/v1",
    "name": "slow",
    "limits": {"steps": 1, "usd": 0.01},
    "output": {"kernel": "kernel"},
    "vars": {"kernel": "string"},
    "tools": {"look": {"kind": "python", "code": (
        "import time\ndef run():\n    time.sleep(4)\n    return {'kernel': open('/proc/version').read()}"
    )}},
    "tasks": {"look": {"kind": "tool", "use": "look", "in": {}, "out": {"kernel": "string"}}},
    "root": {"task": "look", "set": {"kernel": "result.kernel"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {stack.key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
        yield client


def hello(**more: Any) -> dict[str, Any]:
    """hello.yaml: a tool in a sandbox, then a model; patient, for machines that have other things to do."""
    document = dict(compile_file(str(ROOT / "local/workflows/hello.yaml")).document)
    measure = {**document["tasks"]["measure"], "timeout": "60s", "retry": {"max": 4, "backoff": "500ms"}}
    tasks = {**document["tasks"], "measure": measure}
    return document | {"tasks": tasks, "limits": {"steps": 20, "usd": 0.01}} | more


# -- what it is ----------------------------------------------------------------------------------------------


def test_every_container_is_confined(stack: Stack) -> None:
    containers = stack.containers()
    services = {each["Config"]["Labels"]["com.docker.compose.service"] for each in containers}
    assert services == {*FUNCTIONS, *SERVERS, *ONCE}
    for each in containers:
        host, name = each["HostConfig"], each["Name"]
        user = each["Config"]["User"].partition(":")[0]
        assert user.isdigit() and int(user) > 0, name
        assert host["ReadonlyRootfs"], name
        assert (host["CapAdd"], host["CapDrop"], host["Privileged"]) == (None, ["ALL"], False), name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0 and host["PidsLimit"] > 0, name
        assert host["PidMode"] == host["UTSMode"] == "" and host["NetworkMode"] != "host", name
        binds = [bind.split(":") for bind in host["Binds"] or ()]
        writable = [bind[1] for bind in binds if bind[0].startswith("/") and bind[-1] != "ro"]
        assert writable == (["/var/run/docker.sock"] if "run_tool" in name else []), name
        ports = [port for bindings in (host["PortBindings"] or {}).values() for port in bindings]
        assert [port["HostIp"] for port in ports] == (["127.0.0.1"] if "-api-" in name else []), name
        if stays(each):
            assert each["State"]["Health"]["Status"] == "healthy", name
            assert host["RestartPolicy"]["Name"] == "unless-stopped", name


def test_processes_have_no_capability(stack: Stack) -> None:
    """What the engine was told, as the kernel sees it."""
    for each in stack.containers():
        if pid := each["State"]["Pid"]:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}, each["Name"]
            assert status["NoNewPrivs"].strip() == "1"
            assert "0" not in status["Uid"].split(), each["Name"]


def test_the_image_of_nats_has_no_folder_for_data_and_it_has_one_nevertheless(stack: Stack) -> None:
    """As it is with the real image, whose stand-in must not be kinder: a new volume is nobody's to write to."""
    (nats,) = stack.containers("nats")
    look = ("docker", "run", "--rm", "--network", "none", "--entrypoint", "ls", nats["Config"]["Image"], "/")
    assert "data" not in run(*look).split()
    assert nats["Config"]["User"] == "65532:65532"
    assert stack.compose("exec", "-T", "nats", "ls", "/data").split() == ["jetstream"]


@pytest.mark.usefixtures("rebuilt")
def test_an_image_begins_to_be_built_again() -> None:
    """It takes a while: test_images.py looks at it."""


# -- what it does --------------------------------------------------------------------------------------------


def test_the_sample_runs_over_http_and_by_a_published_event(stack: Stack) -> None:
    printed = stack.compose("--profile", "demo", "run", "--rm", "--no-deps", "demo")
    assert "over HTTP: incident-triage succeeded, cost $0.000285" in printed
    assert "by a CloudEvent on NATS: hello-visitor succeeded, cost $0.0000" in printed


def test_the_image_has_the_dashboard(client: httpx.Client) -> None:
    page = client.get("/")
    files = [client.get(f"/{name}") for name in re.findall(r'(?:src|href)="(dashboard\.\w+)"', page.text)]
    assert [each.status_code for each in (page, *files)] == [200, 200, 200]


def test_tools_run_under_gvisor(stack: Stack, client: httpx.Client) -> None:
    made = client.post("/v1/workflows", json=SLOW)
    assert made.status_code == 201, made.text
    accepted = client.post("/v1/runs", json={"workflow": "slow", "input": {}}).json()
    mine = ("ps", "--quiet", "--filter", "label=agentflow.sandbox.owner")
    runtimes: set[str] = set()
    run_: dict[str, Any] = {}
    while run_.get("status") not in ENDS:
        for container in run("docker", *mine).split():
            seen = run("docker", "inspect", "-f", "{{.HostConfig.Runtime}}", container, check=False).strip()
            runtimes |= {seen} - {""}
        run_ = client.get(f"/v1/runs/{accepted['id']}").json()
    assert run_["status"] == "succeeded", run_
    assert runtimes == {"runsc"}
    assert run_["output"]["kernel"] != Path("/proc/version").read_text()


def test_without_the_image_for_tools_run_tool_waits_and_no_tool_runs_as_a_process(stack: Stack) -> None:
    """Beside it lie the engine's socket and the passwords. Once the image is there it goes on by itself."""
    image = f"agentflow.invalid/tools-{os.getpid()}:1"
    name = f"{stack.project}-waits"
    words = ("run", "--detach", "--no-deps", "--name", name, "--env", f"AGENTFLOW_SANDBOX_IMAGE={image}", "run_tool")
    stack.compose(*words)
    try:
        probe = ("docker", "exec", name, "python3", "-c", ASK)
        until(lambda: "docker pull" in run(*probe, check=False), 30)
        found = json.loads(run(*probe))
        assert found["status"] == "not ready"
        assert f"the Docker engine has no image {image} (docker pull {image}, or set AGENTFLOW" in found["reason"]
        run("docker", "tag", BASE, image)
        until(lambda: json.loads(run(*probe))["status"] == "ready", 30)
        (told,) = [line for line in logs_of(name).splitlines() if "sandbox for tools" in line]
        assert json.loads(told)["driver"] == "gvisor"
    finally:
        run("docker", "rm", "--force", name, check=False)
        run("docker", "image", "rm", image, check=False)


def logs_of(container: str) -> str:
    return subprocess.run(["docker", "logs", container], capture_output=True, text=True).stderr


def test_where_the_engine_lets_nobody_in_run_tool_says_how_to_be_let_in(stack: Stack) -> None:
    """A wrong DOCKER_GID: here, no group at all."""
    name = f"{stack.project}-locked"
    (run_tool,) = stack.containers("run_tool")
    environment = [word for each in run_tool["Config"]["Env"] for word in ("--env", each)]
    socket = "/var/run/docker.sock"
    run("docker", "run", "--detach", "--name", name, "--network", f"{stack.project}_inside", "--read-only",
        "--cap-drop", "ALL", "--tmpfs", "/tmp", "--volume", f"{stack.project}_credentials:/var/lib/agentflow:ro",
        "--volume", f"{socket}:{socket}", *environment, run_tool["Config"]["Image"])  # fmt: skip
    try:
        probe = ("docker", "exec", name, "python3", "-c", ASK)
        until(lambda: "DOCKER_GID" in run(*probe, check=False), 30)
        assert "does not answer: [Errno 13] Permission denied" in json.loads(run(*probe))["reason"]
    finally:
        run("docker", "rm", "--force", name, check=False)


def test_a_function_that_is_stopped_ends_in_order(stack: Stack) -> None:
    stack.compose("stop", "dispatch")
    (dispatch,) = stack.containers("dispatch")
    assert dispatch["State"]["ExitCode"] == 0
    stack.compose("start", "dispatch")


# -- what it survives ----------------------------------------------------------------------------------------


class Load:
    """Runs over HTTP and by events for as long as it goes on; what was accepted is known by its key."""

    def __init__(self, url: str, key: str, before: int) -> None:
        self.before = before  # runs of the same workflow that were there
        self._client = httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=10)
        self.accepted: list[str] = []
        self.events: list[str] = []
        self.fault = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def goes_on_until(self, many: int) -> None:
        """Wait for so many accepted runs and events: how many there are after the kills depends on the machine."""
        until = time.monotonic() + 60
        while not self.fault and min(len(self.accepted), len(self.events)) < many:
            assert time.monotonic() < until, f"{len(self.accepted)} runs and {len(self.events)} events in time"
            time.sleep(0.1)

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        self._client.close()

    def _go(self) -> None:
        while not self._over.is_set() and not self.fault:
            key = str(uuid4())
            body = {"workflow": "hello", "input": {"name": "Ada"}}
            if self._until_answered("/v1/runs", body, {"idempotency-key": key}):
                self.accepted.append(key)
            event = {"specversion": "1.0", "id": key, "source": "/test", "type": ARRIVED, "data": {"name": "Bo"}}
            if self._until_answered("/v1/events", event, {"content-type": "application/cloudevents+json"}):
                self.events.append(key)
            self._over.wait(0.4)

    def _until_answered(self, path: str, body: Any, headers: dict[str, str]) -> bool:
        """As a client that takes no answer for none, and asks again with the same key."""
        for _ in range(240):
            try:
                answer = self._client.post(path, json=body, headers=headers)
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code < 300:
                return True
            if answer is not None and answer.status_code not in (409, 429, 500, 502, 503, 504):
                self.fault = f"{path}: {answer.status_code} {answer.text}"
                return False
            time.sleep(0.25)
        self.fault = f"no answer from {path} within a minute"
        return False


@pytest.fixture(scope="module")
def load(stack: Stack, client: httpx.Client) -> Iterator[Load]:
    """Clients that do not stop while containers are killed."""
    trigger = {"type": ARRIVED, "input": {"name": "event.data.name"}}
    for document in (hello(), hello(name="hello-load", trigger=trigger)):
        made = client.post("/v1/workflows", json=document)
        assert made.status_code in (200, 201), made.text
    (before,) = stack.sql("select count(*) from agentflow.runs where workflow = 'hello'")
    load = Load(stack.url, stack.key, int(before))
    yield load
    load.end()


def test_each_container_is_killed_under_load_and_comes_back(stack: Stack, load: Load) -> None:
    """Its first process ends as in a crash; the engine starts it again. In the end all are healthy."""
    for service in (*FUNCTIONS, *SERVERS):
        (before,) = stack.containers(service)
        done = len(load.events)
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        until(lambda service=service, before=before: started_again(stack, service, before), 60)
        until(lambda done=done: len(load.events) > done + 1, 60)
        assert load.fault == "", service
    until(lambda: all(healthy(each) for each in stack.containers() if stays(each)), 120)


def started_again(stack: Stack, service: str, before: Any) -> bool:
    (now,) = stack.containers(service)
    return bool(now["State"]["Running"] and now["State"]["StartedAt"] != before["State"]["StartedAt"])


def stays(container: Any) -> bool:
    return container["Config"]["Labels"]["com.docker.compose.service"] not in ONCE


def healthy(container: Any) -> bool:
    return bool(container["State"]["Running"] and container["State"]["Health"]["Status"] == "healthy")


def test_nothing_is_lost(stack: Stack, load: Load) -> None:
    """After every container was killed once: what was accepted has ended, once each, and is paid for."""
    load.goes_on_until(10)
    load.end()
    assert load.fault == ""

    def settled() -> bool:
        found = stack.sql("select status from agentflow.runs")
        by_event = stack.sql("select 1 from agentflow.runs where workflow = 'hello-load'")
        return all(status in ENDS for status in found) and len(by_event) >= len(load.events)

    until(settled, 120)
    ended = "select workflow || ' ' || status || coalesce(': ' || left(error::text, 300), '') from agentflow.runs"
    found = Counter(stack.sql(f"{ended} where workflow in ('hello', 'hello-load')"))
    assert set(found) == {"hello succeeded", "hello-load succeeded"}, found
    assert found["hello-load succeeded"] == len(load.events)
    assert found["hello succeeded"] == len(load.accepted) + load.before
    assert stack.sql("select reason from agentflow.parked") == []
    unsettled = "select 1 from agentflow.runs where held_micro <> 0 or spent_micro = 0 and steps > 1"
    until(lambda: stack.sql(unsettled) == [], 30)


def until(true: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.3)


def test_functions_are_scaled_and_everything_is_restarted_at_once(stack: Stack) -> None:
    """More of some beside what runs; then nobody waits for anybody, init included."""
    more = ("--no-recreate", "--scale", "dispatch=2", "--scale", "run_tool=2")
    stack.compose("up", "--detach", *more)
    stack.compose("restart", "--timeout", "20", timeout=170)
    stack.compose("up", "--detach", "--wait", *more, timeout=170)
    for service in ("dispatch", "run_tool"):
        assert [healthy(each) for each in stack.containers(service)] == [True, True]
    printed = stack.compose("--profile", "demo", "run", "--rm", "--no-deps", "demo")
    assert printed.count("succeeded") == 2
