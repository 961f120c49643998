"""The account that PostgreSQL runs as: oneself, or as root an unprivileged one, because it refuses root.

As root the server gets a user id of its own that no login and no other program uses, so that nothing else on
the machine (a tool's process running as ``nobody``, say) can signal it or read its data. Where that id cannot
enter the folders on the way (a clone under /root, a private temporary folder), the server keeps one
capability, to pass through folders, instead of anybody's permissions being changed.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from agentflow.errors import Rejected

# The last of 60578-61183, which systemd and the distributions leave unused; the first ones are for tool processes
# (sandbox.identity), and this one must not be among them.
SERVER_UID = 61183
STATUS = Path("/proc/self/status")
# Bit and name, as in capabilities(7); the narrower one first. Docker's default set has only the second.
CAPABILITIES = ((2, "dac_read_search"), (1, "dac_override"))


@dataclass(frozen=True, slots=True)
class Account:
    """How to run a program as ``uid`` (None: as oneself): the words before its command, or Popen's user."""

    uid: int | None
    prefix: tuple[str, ...] = ()

    @property
    def popen_uid(self) -> int | None:
        """The id that Popen changes to; None where ``prefix`` does it."""
        return None if self.prefix else self.uid

    def own(self, *paths: Path) -> None:
        """Give files and folders to the account."""
        if self.uid is not None:
            for path in paths:
                os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def own_tree(self, root: Path) -> None:
        """Give a folder and everything in it to the account."""
        for folder, folders, files in os.walk(root):
            self.own(*(Path(folder, name) for name in (*folders, *files)))
        self.own(root)


def account_for(uid: int, *used: Path) -> Account:
    """The account of a server that uses these files and folders; ``uid`` counts only when we are root."""
    if os.geteuid() != 0:
        return Account(None)
    closed = [folder for path in used for folder in path.parents if not folder.stat().st_mode & 0o001]
    if not closed:
        return Account(uid)
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin:/usr/local/bin")
    capability = _held_capability()
    if setpriv is None or capability is None:
        raise Rejected(
            f"PostgreSQL refuses to run as root, and its own account cannot enter {closed[0]}",
            code="home_unreachable",
            path=str(used[0]),
            mend=f"run as an ordinary user, or allow entering with: chmod o+x {closed[0]}",
        )
    words = [setpriv, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    words += [f"--inh-caps=-all,+{capability}", f"--ambient-caps=-all,+{capability}", "--"]
    return Account(uid, tuple(words))


def named_uid() -> int:
    """A user id that has a name: initdb, unlike the server, insists on one. ``nobody`` when we are root."""
    try:
        return (pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())).pw_uid
    except KeyError:
        raise Rejected(
            "PostgreSQL's initdb needs a user with a name",
            code="no_account",
            path=f"user id {os.geteuid()}",
            mend="add a line for it (as root: for nobody) to /etc/passwd, or set AGENTFLOW_DATABASE_URL",
        ) from None


def _held_capability() -> str | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    held = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return next((name for bit, name in CAPABILITIES if held >> bit & 1), None)
