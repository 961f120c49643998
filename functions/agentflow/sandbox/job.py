"""The sandbox protocol: a job goes in, an outcome comes out, and nothing else is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Code = Literal[
    "tool_error",  # the tool raised; the message names type, text and line
    "timeout",  # wall time or cpu time is up
    "memory",  # more memory than the profile allows
    "output_too_large",  # result or printed text over its limit
    "bad_output",  # the result is not a JSON object
    "sandbox_crashed",  # the tool's process ended without an answer
    "sandbox_unavailable",  # the sandbox could not be made; the tool was not run
]

RETRYABLE: frozenset[Code] = frozenset({"timeout", "sandbox_crashed", "sandbox_unavailable"})
"""Faults that may lie with the machine rather than with the tool and its input."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one call may use. No profile, no call.

    ``cpu``: cores; ``pids``: processes and threads at once; ``wall_s``: seconds from the tool's first line
    on; ``output_bytes``: the result as JSON; ``network``: hosts it may reach (no driver offers any yet).
    """

    cpu: float = 1.0
    memory_bytes: int = 256 * 1024 * 1024
    pids: int = 32
    wall_s: float = 60.0
    output_bytes: int = 64 * 1024
    network: tuple[str, ...] = ()


def _ignored() -> None:
    """Nobody wants to know when a job begins."""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of a Python tool.

    ``code`` defines ``run(**input) -> dict``; ``input`` is a JSON object. ``files`` are (reference, content):
    wherever the input holds such a reference, the tool gets the path of that file inside the sandbox instead.
    ``key`` is what the tool reads as AGENTFLOW_IDEMPOTENCY_KEY. ``begins`` is called when there is room for the job,
    before anything of it runs.
    """

    code: str
    input: bytes
    files: tuple[tuple[str, bytes], ...] = ()
    profile: Profile = Profile()
    key: str = ""
    begins: Callable[[], None] = _ignored


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: ``output`` is a JSON object when ``ok``; else ``error_code`` and ``message`` say why.

    ``known``: the tool has ended by itself, or was not run at all; else it was ended, and how far it came is not known.
    ``stderr_tail`` is the end of what the tool printed; ``wall_s`` is measured from the tool's first line on.
    """

    ok: bool
    output: bytes = b""
    error_code: Code | None = None
    message: str = ""
    stderr_tail: str = ""
    wall_s: float = 0.0
    known: bool = True


class Sandbox(Protocol):
    """A driver. ``run`` never raises for what the tool does, and leaves nothing behind, also when cancelled.

    ``isolates`` and ``missing`` say in a sentence each what the driver keeps apart and what it does not; the
    second is empty when nothing is known to be missing.
    """

    @property
    def name(self) -> str: ...
    @property
    def isolates(self) -> str: ...
    @property
    def missing(self) -> str: ...
    async def start(self) -> None:
        """Clear what a killed predecessor left and make sure jobs can run; ``Rejected`` says what to mend."""

    async def run(self, job: Job) -> Outcome: ...
    async def close(self) -> None: ...
