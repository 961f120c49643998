"""Tools written in Python and shipped with the workflow: run in a sandbox, under a profile made for the call."""

from __future__ import annotations

from typing import Any

import structlog

from agentflow.core.plan import ToolSpec
from agentflow.errors import Rejected, RetryLater, UnknownOutcome
from agentflow.sandbox import RETRYABLE, Job, Outcome, Profile, Sandbox
from agentflow.tools.call import ToolCall
from agentflow.wire import json_value

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 1.0


async def call_python(sandbox: Sandbox, spec: ToolSpec, call: ToolCall) -> dict[str, Any]:
    """The result of the tool's ``run(**input)``. ``Rejected`` for the tool's faults, ``RetryLater`` for ours;
    ``UnknownOutcome`` where a call that may be made once only was ended before it had said what it came to."""
    given, files = json_value.dumps(call.input, "input"), tuple(call.files.items())
    job = Job(spec.code, given, files, profile(spec, call), call.key, call.begins)
    outcome = await sandbox.run(job)
    if outcome.stderr_tail:
        log.debug(
            "tool printed", tool=call.tool, tenant=str(call.tenant), run=str(call.run), step=call.step,
            text=outcome.stderr_tail,
        )  # fmt: skip
    if outcome.ok:
        result: dict[str, Any] = json_value.loads(outcome.output, "result")
        return result
    if spec.once and not outcome.known:
        raise UnknownOutcome(f"{outcome.error_code}: {outcome.message}")
    raise _error(outcome)


def profile(spec: ToolSpec, call: ToolCall) -> Profile:
    """What this call may use: the tool's own limits, and never more time than the task has."""
    own = call.timeout_s if spec.timeout_ms is None else spec.timeout_ms / 1000
    return Profile(
        cpu=spec.cpu,
        memory_bytes=spec.memory_bytes,
        wall_s=min(own, call.timeout_s),
        output_bytes=spec.output_bytes,
    )


def _error(outcome: Outcome) -> Rejected | RetryLater:
    code = outcome.error_code or "sandbox_crashed"
    if code in RETRYABLE:
        return RetryLater(outcome.message, after=RETRY_AFTER_S, code=code)
    return Rejected(outcome.message, code=code)
