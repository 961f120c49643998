"""The host's side of the talk with a guest: what is sent to it, and what its answer is worth.

Nothing a guest says is trusted: the tool shares its process. It can lie about its own result, which is its to
choose, but not about its limits, and not about how it ended.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from json import JSONDecodeError
from json import loads as exact_loads
from math import ceil
from typing import Any

import orjson

from agentflow.errors import Invalid
from agentflow.sandbox.job import Code, Job, Outcome, Profile
from agentflow.wire import json_value

READY = b"ready\n"
START_S = 30.0
"""Longest time from the call to the tool's first line; it is the sandbox's, not the tool's."""
PRINT_LIMIT = 1024 * 1024
"""Most bytes a tool may print before it is stopped; only the last ``TAIL`` are kept."""
TAIL = 4096
ERROR_LIMIT = 16 * 1024
GUEST_CODES: dict[str, Code] = {
    "tool_error": "tool_error",
    "memory": "memory",
    "output_too_large": "output_too_large",
    "bad_output": "bad_output",
}
# C0 and C1 controls but tab and newline: what a tool prints must not drive a terminal.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def request(job: Job, *, pids: int | None = None) -> bytes:
    """What a guest reads from stdin; ``pids`` replaces the profile's where more than the job is counted."""
    code = job.code.encode()
    profile = job.profile
    header = {
        "key": job.key,
        "code": len(code),
        "input": len(job.input),
        "files": [[reference, len(content)] for reference, content in job.files],
        "limits": {
            "memory": profile.memory_bytes,
            "cpu_s": ceil(profile.wall_s * profile.cpu) + 1,
            "pids": profile.pids if pids is None else pids,
            "output": profile.output_bytes,
        },
    }
    return b"".join([orjson.dumps(header), b"\n", code, job.input, *(content for _, content in job.files)])


class Dialogue:
    """Collects a guest's answer within bounds and says at the end what it amounts to.

    Feed what arrives to ``heard`` (stdout) and ``printed`` (stderr), also after ``wait`` has returned: a
    guest that is not listened to does not end.
    """

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._answer = bytearray()
        self._limit = len(READY) + 1 + max(profile.output_bytes, ERROR_LIMIT)
        self._tail = bytearray()
        self._printed = 0
        self._flooded = ""
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._too_much: asyncio.Future[None] = loop.create_future()

    def heard(self, data: bytes) -> None:
        self._answer += data[: self._limit + 1 - len(self._answer)]
        if not self._ready.done() and self._answer.startswith(READY):
            self._ready.set_result(None)
        if len(self._answer) > self._limit:
            self._flood(f"the result exceeds the tool's limit of {self._profile.output_bytes} bytes")

    def printed(self, data: bytes) -> None:
        self._printed += len(data)
        self._tail += data[-TAIL:]
        del self._tail[:-TAIL]
        if self._printed > PRINT_LIMIT:
            self._flood(f"the tool printed more than {PRINT_LIMIT} bytes")

    def _flood(self, what: str) -> None:
        if not self._too_much.done():
            self._flooded = what
            self._too_much.set_result(None)

    async def wait(self, told: asyncio.Future[Any]) -> tuple[bool, float]:
        """Wait until all is told, the tool says too much, or its time is up: (time is up, seconds it took).

        ``told`` is done when the guest's streams have ended.
        """
        first = asyncio.FIRST_COMPLETED
        over = {told, self._too_much}
        await asyncio.wait({*over, self._ready}, timeout=START_S, return_when=first)
        began = time.monotonic()
        done, _ = await asyncio.wait(over, timeout=self._profile.wall_s, return_when=first)
        return not done and self._ready.done(), time.monotonic() - began

    def outcome(
        self, wall_s: float, *, signal_no: int = 0, timed_out: bool = False, oom: bool = False
    ) -> Outcome:
        """What the talk amounts to, once the guest is gone.

        ``signal_no``: the signal that ended the tool's process, 0 if none; ``timed_out``: we stopped it for
        its time; ``oom``: the kernel has killed something of it for its memory.
        """
        tail = legible(bytes(self._tail).decode(errors="replace"))

        def failed(code: Code, message: str, *, known: bool = False) -> Outcome:
            return Outcome(False, b"", code, legible(message), tail, wall_s, known)

        if self._flooded:
            mend = "return less, or raise the tool's `output`"
            return failed("output_too_large", f"{self._flooded}: {mend}")
        if timed_out or signal_no == signal.SIGXCPU:
            return failed("timeout", f"the tool did not end within {self._profile.wall_s:g} s")
        ready = self._ready.done()
        body = bytes(self._answer[len(READY) :]) if ready else b""
        if body[:1] == b"O":
            fault = _fault(body[1:])
            if fault:
                return failed("bad_output", f"the result of run() is not a JSON object: {fault}", known=True)
            return Outcome(True, body[1:], stderr_tail=tail, wall_s=wall_s)
        if body[:1] == b"E":
            told = _error(body[1:])
            if told:
                return failed(*told, known=True)
        if oom:
            mebibytes = self._profile.memory_bytes >> 20
            return failed("memory", f"the tool used more than its {mebibytes} MiB of memory")
        if body or (self._answer and not ready):
            return failed("bad_output", "the tool wrote to the channel its result goes through")
        if not ready:
            last = tail.strip().rpartition("\n")[2] or "it ended before the tool could start"
            return failed("sandbox_unavailable", f"the sandbox could not be set up: {last[:500]}", known=True)
        if signal_no:
            return failed("sandbox_crashed", f"the tool's process was ended by {_signal_name(signal_no)}")
        return failed("sandbox_crashed", "the tool's process ended without a result")


def legible(text: str) -> str:
    """Text from a tool, safe to print and to store: control characters are replaced."""
    return _CONTROLS.sub("�", text)


def _fault(body: bytes) -> str:
    try:
        value = json_value.loads(body, "result")
        if not isinstance(value, dict):
            return "it is a list or a scalar"
        if _LONG_NUMBER.search(body):  # orjson reads an integer beyond 64 bits as a float, silently
            exact_loads(body, parse_int=_int64)
    except (Invalid, JSONDecodeError, ValueError, RecursionError) as fault:
        return str(fault)
    return ""


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("an integer exceeds 64 bits (return it as a string)")
    return int(digits)


def _error(body: bytes) -> tuple[Code, str] | None:
    try:
        told = orjson.loads(body)
        code = GUEST_CODES[told["code"]]
        message = told["message"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return (code, message[:2000]) if isinstance(message, str) else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
