"""What the command line and the processes without one share: settings, an event loop, errors as one line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from agentflow.errors import AgentFlowError, Invalid, Rejected

if TYPE_CHECKING:
    from agentflow.config import Settings

SWITCHES = ("push", "relay", "replica")


def guarded(work: Callable[[], Any]) -> None:
    """Run ``work``; every error that is ours is one line on stderr and exit code 1."""
    try:
        work()
    except AgentFlowError as fault:
        _complain(fault, as_json="--json" in sys.argv)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def settings() -> Settings:
    """The settings of this process, from its environment."""
    from agentflow.config import Settings

    return Settings.from_env()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run what a command does and comes to an end with."""
    import asyncio  # 70 ms that --help and validate do without

    return asyncio.run(work)


def carry(work: Coroutine[Any, Any, Any]) -> Any:
    """Run what carries functions, on the event loop that hosts run on."""
    import errno

    from agentflow.runtime.loop import run as run_loop

    try:
        return run_loop(work)
    except OSError as fault:
        if fault.errno != errno.EADDRINUSE:
            raise
        mend = "stop what listens there, or set AGENTFLOW_HTTP_PORT (0: a free one)"
        raise Rejected(
            "the port is taken", code="port_taken", path="AGENTFLOW_HTTP_PORT", mend=mend
        ) from None


def without_rich() -> None:
    """Have structlog not find rich, which it imports to draw tracebacks: processes that write JSON lines draw none,
    and start a tenth faster."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]


def serve(
    functions: Sequence[str], *, push: bool = False, relay: bool = False, replica: bool = False
) -> None:
    """Carry functions until SIGTERM."""
    without_rich()
    from agentflow.terminal.stack import run_serve

    carry(run_serve(settings(), functions, push=push, relay=relay, replica=replica))


def plainly_serves(words: Sequence[str]) -> tuple[list[str], list[str]] | None:
    """The functions and switches of a plain ``serve``; None for whatever else the words may say."""
    if words[:1] != ["serve"]:
        return None
    names = [word for word in words[1:] if not word.startswith("-")]
    switches = [word.removeprefix("--") for word in words[1:] if word.startswith("-")]
    return (names, switches) if set(switches) <= set(SWITCHES) else None


def _complain(fault: AgentFlowError, *, as_json: bool) -> None:
    if as_json:
        found = (
            fault.problems
            if isinstance(fault, Invalid)
            else [fault.problem]
            if isinstance(fault, Rejected)
            else []
        )
        problems = [{"path": p.path, "message": p.message, "mend": p.mend, "code": p.code} for p in found]
        code = str(getattr(fault, "code", "error"))
        print(json.dumps({"error": str(fault), "code": code, "errors": problems}), file=sys.stderr)
    else:
        print("error: " + " ".join(str(fault).split()), file=sys.stderr)
