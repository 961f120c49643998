"""Tools in a container that is itself a sandbox: a pod on a gVisor node, which needs no Docker engine.

gVisor keeps the pod from the node; here each job is kept from the pod. It gets users, processes, a network (with
nothing in it), mounts and a root folder of its own from the pod's kernel, which gVisor allows without privileges: the
pod runs as nobody, read-only, without capabilities. The programs of the system are all that a job can read.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from agentflow.errors import Rejected
from agentflow.sandbox import guest
from agentflow.sandbox.process import ProcessSandbox

MEND = "run it on a node with gVisor (runtimeClassName gvisor), or set AGENTFLOW_SANDBOX=gvisor beside a Docker engine"


class NestedSandbox(ProcessSandbox):
    """Runs each job in namespaces of its own; at most ``slots`` at once, the others wait."""

    name = "nested"
    isolates = "Tools run in namespaces of their own, without a network and without the files of this container."

    @property
    def missing(self) -> str:
        lacks = "Memory and disk are limited per process and per file; in all, by the container."
        return lacks if in_gvisor() else f"{lacks} Tools share this machine's kernel: it is not gVisor's."

    def _guest(self, uid: int) -> list[str]:
        # Root needs no users of its own, and has one for each job.
        alone = ["--user", "--map-root-user"] if os.getuid() else []
        separate = ["unshare", *alone, "--pid", "--net", "--mount", "--ipc", "--uts", "--fork", "--kill-child"]
        return [*separate, sys.executable, "-I", "-S", "-X", "utf8", guest.__file__, "nest", str(uid)]

    async def start(self) -> None:
        if shutil.which("unshare") is None:
            raise Rejected("there is no program unshare", code="sandbox_unavailable", mend="install util-linux")
        try:
            await super().start()
        except Rejected as fault:
            raise Rejected(fault.problem.message, code="sandbox_unavailable", mend=MEND) from None


def in_gvisor() -> bool:
    """Whether this process runs on gVisor's kernel, which tells so in its log."""
    try:
        return "gVisor" in Path("/proc/version").read_text() or _log_says()
    except OSError:
        return False


def _log_says() -> bool:
    import ctypes

    buffer = ctypes.create_string_buffer(4096)
    read = ctypes.CDLL(None).klogctl(3, buffer, len(buffer))  # 3: read the kernel's log
    return read > 0 and b"gVisor" in buffer.raw[:read]
