"""Who tool processes run as: under root, a user id per job that nobody else has."""

from __future__ import annotations

import errno
import os
import socket
import sys

from agentflow.errors import RetryLater

# Left free by Debian's, Fedora's and systemd's allocations, and inside a container's usual 65,536 ids.
UIDS = range(60578, 60706)


class Identities:
    """Lends user ids to jobs. One id is one job's alone on this machine, so that its processes can be counted
    and killed by it; a name in the abstract socket namespace, freed by the kernel when we die, sees to that.
    """

    def __init__(self) -> None:
        self._claims: dict[int, socket.socket] = {}
        self._free: list[int] = []

    def take(self) -> int:
        """A user id; 0: tools run as we do, as we are not root. ``RetryLater`` when all are taken."""
        if os.getuid() != 0 or sys.platform != "linux":
            return 0
        if self._free:
            return self._free.pop()
        for uid in UIDS:
            if uid in self._claims:
                continue
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0agentflow-tool-uid-{uid}")
            except OSError as fault:
                claim.close()
                if fault.errno != errno.EADDRINUSE:
                    raise
                continue
            self._claims[uid] = claim
            return uid
        raise RetryLater("every user id for tools is taken by another AgentFlow", code="sandbox_unavailable")

    def give_back(self, uid: int) -> None:
        if uid:
            self._free.append(uid)

    def close(self) -> None:
        for claim in self._claims.values():
            claim.close()
        self._claims.clear()
        self._free.clear()
