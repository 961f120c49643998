"""The nested driver: the same suite on this machine's kernel, and what else it keeps apart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import orjson
import pytest

from agentflow.sandbox import Job, Sandbox, guest
from agentflow.sandbox.dialogue import request
from agentflow.sandbox.nested import NestedSandbox

from .conftest import IMAGE
from .hostile import HostileTools, call, result
from .test_process import guarded


def may_nest() -> bool:
    """Whether this kernel lets us have namespaces."""
    alone = ["--user", "--map-root-user"] if os.getuid() else []
    asked = ["unshare", *alone, "--pid", "--net", "--mount", "--fork", "true"]
    return shutil.which("unshare") is not None and subprocess.run(asked, capture_output=True).returncode == 0


@pytest.fixture
async def sandbox(require: Callable[[object, str], None]) -> AsyncIterator[NestedSandbox]:
    require(may_nest(), "namespaces, which need root or unprivileged user namespaces")
    async for sandbox in guarded(NestedSandbox()):
        assert isinstance(sandbox, NestedSandbox)
        yield sandbox


class TestNested(HostileTools):
    @pytest.fixture
    async def sandbox(self, sandbox: NestedSandbox) -> NestedSandbox:
        return sandbox


async def test_nothing_of_the_containers_can_be_seen(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> None:
    secret = tmp_path_factory.mktemp("run") / "pgpass"
    secret.write_text("engine:secret")
    os.chmod(secret, 0o644)
    code = """
import os, glob
def run(secret):
    roots = sorted(os.listdir("/"))
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    devices = [line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line]
    asked = (secret, "/etc/passwd", "/../etc/passwd", "/run", "/var", "/tmp", "/proc/1/root" + secret)
    there = [path for path in asked if os.path.exists(path)]
    environ = [open(path).read() for path in glob.glob("/proc/[0-9]*/environ") if os.access(path, os.R_OK)]
    return {"roots": roots, "pids": len(pids), "devices": devices, "there": there, "environ": "".join(environ)}
"""
    os.environ["AGENTFLOW_TEST_SECRET"] = "in the environment"
    try:
        seen = result(await call(sandbox, code, secret=str(secret)))
    finally:
        del os.environ["AGENTFLOW_TEST_SECRET"]
    assert "in the environment" not in seen["environ"]
    assert seen["there"] == []
    assert seen["pids"] <= 3
    assert seen["devices"] == ["lo"]
    assert {"etc", "run", "var", "tmp", "home"}.isdisjoint(seen["roots"])


async def test_there_is_no_network_not_even_this_machines(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = """
import socket
def run(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1)
    except OSError as fault:
        return {"refused": str(fault)}
    return {"refused": ""}
"""
        assert result(await call(sandbox, code, port=server.getsockname()[1]))["refused"]


async def test_a_tool_has_no_capabilities_and_cannot_mount_or_write_programs(sandbox: Sandbox) -> None:
    code = """
import ctypes, os
def run():
    caps = {line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")}
    libc = ctypes.CDLL(None, use_errno=True)
    mounted = libc.mount(b"tmpfs", b"/job", b"tmpfs", 0, None)
    wrote = []
    for path in ("/usr/x", "/x", "/dev/x", "/proc/sys/kernel/hostname"):
        try:
            open(path, "w").write("x")
            wrote.append(path)
        except OSError:
            pass
    return {"caps": sorted(caps), "mounted": mounted, "wrote": wrote}
"""
    seen = result(await call(sandbox, code))
    assert [set(caps) for caps in seen["caps"][:1]] == [{"0"}]
    assert seen["mounted"] == -1
    assert seen["wrote"] == []


async def test_it_says_whether_the_kernel_is_gvisors(sandbox: Sandbox) -> None:
    assert "not gVisor's" in sandbox.missing


@pytest.mark.docker("runsc")
def test_in_a_pod_of_gvisors_nobody_may_nest_without_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Knative runs it: no user of the system, no capability, nothing writable but /tmp, on gVisor's kernel."""
    monkeypatch.setattr(os, "getuid", lambda: 65532)
    places = {sys.executable: "python3", guest.__file__: "/guest.py"}
    inside = [places.get(word, word) for word in NestedSandbox()._guest(0)]
    monkeypatch.undo()
    code = """
import os
def run():
    asked = ("/etc/passwd", "/../etc/passwd", "/guest.py", "/tmp", "/proc/1/root/guest.py")
    there = [path for path in asked if os.path.exists(path)]
    try:
        os.mkdir("/x")
        there.append("/x")
    except OSError:
        pass
    caps = {line.split()[1].strip("0") for line in open("/proc/self/status") if line.startswith("Cap")}
    pids = len([name for name in os.listdir("/proc") if name.isdigit()])
    return {"there": there, "caps": sorted(caps), "pids": pids, "roots": sorted(os.listdir("/"))}
"""
    script = 'mkdir /tmp/job && cd /tmp/job && exec env -i PATH="$PATH" "$@"'
    container = [
        "docker", "run", "--rm", "--interactive", "--runtime", "runsc", "--network", "none", "--user", "65532:65532",
        "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "--tmpfs", "/tmp:exec,mode=1777",
        "--volume", f"{guest.__file__}:/guest.py:ro", IMAGE, "sh", "-c", script, "sh",
    ]  # fmt: skip
    with subprocess.Popen([*container, *inside], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request(Job(code, b"{}"), pids=64))  # and left open: closing it says that it is over
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        answer = process.stdout.read()
    assert answer[:1] == b"O", answer
    seen = orjson.loads(answer[1:])
    assert seen == {"there": [], "caps": [""], "pids": 2, "roots": seen["roots"]}
    assert {"etc", "tmp", "run"}.isdisjoint(seen["roots"])
