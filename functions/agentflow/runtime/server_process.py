"""Server programs of the embedded stack: find them, start them, end them.

A server outlives a host that was killed, so the next host must recognise it. Recognition never trusts a pid
file: a process is ours when its program has the name and its command line (or its working directory, which
follows a renamed home) is that of our folder. Strangers are never signalled.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from agentflow.errors import Conflict, Rejected

POLL_S = 0.005
KEEP_LOG_BYTES = 8 * 1024 * 1024
PROC = Path("/proc")
# Nothing of the user's environment reaches a server: PGOPTIONS, PGDATA, LANG or TZ would change what it does.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/local/bin:/usr/bin:/bin"}
HOME_MEND = "choose another folder with AGENTFLOW_HOME"


class FolderLock:
    """An advisory lock that one process holds on a folder; the kernel drops it when that process dies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock (nothing, when held already), or raise ``Conflict`` naming the holder's pid."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as fault:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            if fault.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            text = f"{self.folder} is in use by process {holder}: stop that process or {HOME_MEND}"
            raise Conflict(text, code="home_in_use") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, because deleting it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Server:
    """One running server program: our child, or left running by a host that was killed and adopted here."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.command = command_line(pid)
        self._child = child

    @property
    def alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        # A zombie, and a stranger that was given the same pid, have another command line.
        return bool(self.command) and command_line(self.pid) == self.command

    def end(self, steps: Sequence[tuple[signal.Signals, float]]) -> None:
        """Send each signal in turn and wait up to its seconds, until the process is gone."""
        for number, seconds in steps:
            if not self.alive:
                return
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return
            if wait_until(lambda: not self.alive, seconds):
                return
        raise Rejected(f"process {self.pid} does not end", code="server_stuck", mend="end it by hand")


def spawn(argv: Sequence[str], *, folder: Path, log: Path, uid: int | None = None) -> Server:
    """Start a server in its own session, its output appended to ``log``; ``uid`` None means as oneself.

    Its own session keeps the terminal's Ctrl-C from it: the host decides when and in which order servers end.
    """
    if log_size(log) > KEEP_LOG_BYTES:
        log.replace(log.with_name("log.old"))
    with open_log(log) as output:
        child = subprocess.Popen(
            list(argv),
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o077,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
    return Server(child.pid, child)


def running(program: str, folder: Path, argument: str) -> list[Server]:
    """The processes of ``program`` that serve ``folder``: started with ``argument``, or working in it."""
    found = [
        pid
        for pid, words in _processes()
        if words and Path(words[0]).name == program and (argument in words or _works_in(pid, folder))
    ]
    # A child that was forked this moment still has its parent's command line; it is its parent's to end.
    return [Server(pid) for pid in found if _parent(pid) not in found]


def command_line(pid: int) -> list[str] | None:
    """The words of a process's command line; None when it has ended (a zombie counts as ended)."""
    if not PROC.joinpath("self").exists():
        ps = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        return subprocess.run(ps, capture_output=True, text=True).stdout.split() or None
    try:
        text = PROC.joinpath(str(pid), "cmdline").read_bytes()
    except OSError:
        return None
    return [os.fsdecode(word) for word in text.removesuffix(b"\0").split(b"\0")] if text else None


def _parent(pid: int) -> int | None:
    if not PROC.joinpath("self").exists():
        said = subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True).stdout
    else:
        try:
            # The second field is the name in brackets, which may hold anything.
            said = PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            return None
    return int(said) if said.strip().isdecimal() else None


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition for at most ``seconds``; whether it came true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def make_folder(folder: Path) -> None:
    """Make a folder of the home where there is none."""
    # As root the server's own account must pass through; nobody else may list what is inside either way.
    folder.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)


def open_log(log: Path) -> BinaryIO:
    """A log to append to, which only its owner may read: it can quote statements and names."""
    return open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")


def log_size(log: Path) -> int:
    """The length of a log in bytes; 0 when there is none."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def log_since(log: Path, offset: int) -> str:
    """What a server wrote to its log after byte ``offset``, at most the last 4 KiB of it."""
    try:
        with log.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(min(offset, size), size - 4096))
            return source.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def failed_start(name: str, home: Path, said: str) -> Rejected:
    """The error for a server that did not come up, with the mend that what it ``said`` suggests."""
    if os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said:
        text, mend = f"the disk is full, {name} cannot start", f"free some space there or {HOME_MEND}"
        return Rejected(text, code="disk_full", path=str(home), mend=mend)
    text = f"{name} did not start: {' | '.join(said.splitlines()[-3:]) or 'it said nothing'}"
    return Rejected(text, code="server_failed", path=str(home), mend="see its log file in that folder")


def unusable(home: Path, fault: OSError) -> Rejected:
    """The error for a home that cannot be used."""
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        return failed_start("the embedded stack", home, os.strerror(fault.errno))
    text = f"the folder cannot be used: {fault.strerror or fault}"
    return Rejected(text, code="home_unusable", path=str(fault.filename or home), mend=HOME_MEND)


def _processes() -> Iterator[tuple[int, list[str] | None]]:
    if PROC.joinpath("self").exists():
        for name in os.listdir(PROC):
            if name.isdigit():
                yield int(name), command_line(int(name))
        return
    # Systems without /proc show one string: words are told apart at spaces only, which recognises fewer
    # servers (not those of a home with spaces), never a stranger.
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        pid, *words = line.split()
        yield int(pid), words


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return os.path.samefile(PROC / str(pid) / "cwd", folder)
    except OSError:
        return False
