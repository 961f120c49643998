"""The lifecycle that both servers of the embedded stack share: start, stop, alive, the end of the host."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from agentflow.errors import AgentFlowError, Rejected
from agentflow.runtime.server_process import HOME_MEND, FolderLock, Server, make_folder, unusable

LONGEST_FOLDER = 900  # PostgreSQL's MAXPGPATH is 1,024, and both servers append names


class EmbeddedServer(ABC):
    """One server whose data, log and lock live in ``home/<name>``.

    The server ends with ``stop`` or when this process exits normally. When this process is killed it stays,
    and the next ``start`` adopts it, or replaces it where it runs with other settings.
    """

    name: str

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.folder = self.home / self.name
        self.log = self.folder / "log"
        self._server: Server | None = None
        self._lock = FolderLock(self.folder)
        self._mutex = threading.RLock()
        self._owner = 0

    async def start(self) -> None:
        """Return when the server takes connections; does nothing when it is alive.

        Raises ``Conflict`` when another process serves the same home, and ``Rejected`` with the path and the
        mend when the server cannot start.
        """
        await asyncio.to_thread(self.up)

    async def stop(self) -> None:
        """Stop the server cleanly and wait for its end; safe at any time, also twice."""
        await asyncio.to_thread(self.down)

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        server = self._server
        return server is not None and server.alive

    @property
    def pid(self) -> int | None:
        """The server's process id; None when stopped."""
        return self._server.pid if self._server is not None else None

    def up(self) -> None:
        """``start`` for callers without an event loop."""
        with self._mutex:
            if self.alive:
                return
            try:
                self._prepare()
                self._server = self._launch()
            except OSError as fault:
                self._forget()
                raise unusable(self.home, fault) from fault
            except BaseException:
                self._forget()
                raise
            self._owner = os.getpid()
            atexit.register(self._at_exit)

    def down(self) -> None:
        """``stop`` for callers without an event loop."""
        with self._mutex:
            atexit.unregister(self._at_exit)
            if self._server is not None:
                self._end(self._server)
            self._forget()

    @abstractmethod
    def _launch(self) -> Server:
        """Adopt or start the server; return when it takes connections. The folder exists and is locked."""

    @abstractmethod
    def _end(self, server: Server) -> None:
        """End one server process and wait for it."""

    def _started(self) -> Server:
        if self._server is None:
            text = f"the embedded {self.name} is not started"
            raise Rejected(text, code="not_started", mend="start it first")
        return self._server

    def _prepare(self) -> None:
        self._server = None
        if len(os.fsencode(self.folder)) > LONGEST_FOLDER or not str(self.folder).isprintable():
            text = "the folder's path is too long or holds control characters"
            raise Rejected(text, code="home_path", path=str(self.home), mend=HOME_MEND)
        make_folder(self.home)
        make_folder(self.folder)
        self._lock.acquire()

    def _forget(self) -> None:
        self._server = None
        self._lock.release()

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # a forked child must not end its parent's server
            with contextlib.suppress(AgentFlowError, OSError):
                self.down()
