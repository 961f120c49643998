"""Which driver: the one that is asked for, or the best one this machine has."""

from __future__ import annotations

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.sandbox.docker import DockerSandbox
from agentflow.sandbox.engine import Engine, unavailable
from agentflow.sandbox.job import Sandbox
from agentflow.sandbox.nested import NestedSandbox
from agentflow.sandbox.process import ProcessSandbox

DRIVERS = ("gvisor", "docker", "nested", "process")
INSTALL = "infra/gvisor/install.sh installs Docker and gVisor on Debian"
LET_IN = "a container needs the engine's socket and its group: DOCKER_SOCKET and DOCKER_GID in local/.env"
WITHOUT = "AGENTFLOW_SANDBOX=process does without, for development"


def check_driver(settings: Settings) -> None:
    """Whether the driver that is asked for is one at all; ``Rejected`` names those there are."""
    wanted = settings.sandbox
    if wanted not in ("auto", *DRIVERS):
        mend = f"set it to auto, {', '.join(DRIVERS[:-1])} or {DRIVERS[-1]}"
        raise Rejected(f"unknown driver {wanted!r}", code="bad_setting", path="AGENTFLOW_SANDBOX", mend=mend)


def open_sandbox(settings: Settings) -> Sandbox:
    """The driver that ``settings.sandbox`` names; ``auto``: gvisor, else docker, else process.

    Asks the Docker engine, where there is one, for its runtimes and images, and nothing else: ``start`` the
    result before the first job. ``Rejected`` when the driver asked for cannot be had; ``auto`` always can, unless a
    sandbox is required: beside a process in a container lie that container's secrets, and perhaps the engine's socket.
    """
    check_driver(settings)
    wanted = settings.sandbox
    if wanted == "process":
        return ProcessSandbox(settings.sandbox_slots)
    if wanted == "nested":
        return NestedSandbox(settings.sandbox_slots)
    engine = Engine(settings.docker_host, connections=settings.sandbox_slots + 1)
    lack, mend = engine.problem(), LET_IN if settings.sandbox_required else INSTALL
    has_gvisor = not lack and engine.has_runtime("runsc")
    if not lack and wanted == "gvisor" and not has_gvisor:
        lack, mend = "the Docker engine has no runtime runsc", INSTALL
    if not lack and not engine.has_image(settings.sandbox_image):
        lack = f"the Docker engine has no image {settings.sandbox_image}"
        mend = f"docker pull {settings.sandbox_image}, or set AGENTFLOW_SANDBOX_IMAGE to one with python3"
    if lack:
        engine.close()
        if settings.sandbox_required:
            raise unavailable(lack, mend)
        if wanted == "auto":
            return ProcessSandbox(settings.sandbox_slots, instead=f"{lack}: {mend}")
        raise unavailable(lack, f"{mend}; {WITHOUT}")
    gvisor = has_gvisor and wanted != "docker"
    image, slots = settings.sandbox_image, settings.sandbox_slots
    return DockerSandbox(engine, image=image, gvisor=gvisor, slots=slots)
