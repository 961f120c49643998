"""Docker engines for the tests of the container drivers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from agentflow.config import Settings
from agentflow.sandbox.engine import Engine

SETTINGS = Settings.from_env()
IMAGE = SETTINGS.sandbox_image


@pytest.fixture
def engine(require: Callable[[object, str], None]) -> Iterator[Engine]:
    """The machine's engine, with the image for tools."""
    engine = Engine(SETTINGS.docker_host, connections=12)
    require(engine.has_image(IMAGE), f"no Docker image {IMAGE}: infra/docker/tool-image.sh")
    yield engine
    engine.close()


@pytest.fixture
def listener() -> Iterator[tuple[str, int, list[str]]]:
    """A TCP server on all of the host's addresses: (an address that is not loopback, port, who called)."""
    server = socket.create_server(("0.0.0.0", 0))
    callers: list[str] = []

    def accept() -> None:
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            callers.append(peer[0])
            connection.close()

    threading.Thread(target=accept, daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; asks which address would
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    yield address, server.getsockname()[1], callers
    server.close()
