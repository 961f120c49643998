"""A worker: the product's own command line, started after the harness has reached into it.

    python -m chaos.worker serve dispatch

The environment says how: CHAOS_CONTROL (the control block), CHAOS_COMMITS (where commits are logged), CHAOS_BUG
(a planted bug's name, or nothing). Everything else is the product's own configuration.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Reach in, then be ``agentflow`` with this process's arguments."""
    if sys.platform == "linux":  # a harness that is killed takes its workers along
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    from chaos import failpoints
    from chaos.control import Control

    control = Control(Path(os.environ["CHAOS_CONTROL"]))
    commits = os.open(
        os.environ["CHAOS_COMMITS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    failpoints.install(control, commits)
    if bug := os.environ.get("CHAOS_BUG"):
        from chaos.bugs import BUGS

        BUGS[bug].plant()
    if {"api", "all"} & set(sys.argv):
        import agentflow.control.app  # before the clock is moved
    failpoints.move_clock(control)
    from agentflow.__main__ import main as agentflow

    agentflow()


if __name__ == "__main__":
    main()
