"""The one way to call a tool, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from agentflow.config import Settings
from agentflow.errors import Rejected, RetryLater
from agentflow.sandbox import Sandbox, check_driver, open_sandbox
from agentflow.tools.builtin import BUILTINS
from agentflow.tools.call import ToolCall
from agentflow.tools.python_code import call_python

log = structlog.get_logger(__name__)


class Tools:
    """Calls built-in tools in this process and all others in a sandbox, which is opened for the first of them."""

    def __init__(self, open_sandbox: Callable[[], Sandbox]) -> None:
        self._open_sandbox = open_sandbox
        self._opening: asyncio.Task[Sandbox] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Tools:
        check_driver(settings)
        return cls(partial(open_sandbox, settings))

    async def call(self, call: ToolCall) -> dict[str, Any]:
        """The tool's result, a JSON object. ``Rejected``: trying again changes nothing; ``RetryLater``: it may."""
        builtin = BUILTINS.get(call.tool)
        if builtin is not None:
            return builtin(call)
        spec = call.spec
        if spec is None:
            mend = f"declare it under tools, or use one of {', '.join(sorted(BUILTINS))}"
            raise Rejected(f"there is no tool {call.tool}", code="unknown_tool", path="use", mend=mend)
        if spec.kind != "python":
            mend = "kind: python is available"
            raise Rejected(
                f"tools of kind {spec.kind} are not yet available", code="unknown_kind",
                path=f"tools.{call.tool}.kind", mend=mend,
            )  # fmt: skip
        return await call_python(await self.sandbox(), spec, call)

    def warm(self) -> None:
        """Begin to open the sandbox. If that fails the log says why, and the first call tries again."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_tell)

    async def sandbox(self) -> Sandbox:
        """The sandbox, opened and started. ``RetryLater`` when it cannot be had now; the next call tries again."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except Rejected as fault:
            if self._opening is opening:
                self._opening = None
            if fault.code != "sandbox_unavailable":
                raise
            raise RetryLater(str(fault), after=1.0, code=fault.code) from None

    async def close(self) -> None:
        """Free the sandbox. Calls in flight belong to their callers, who cancel them first."""
        if self._opening is None:
            return
        opening, self._opening = self._opening, None
        opening.cancel()
        (opened,) = await asyncio.gather(opening, return_exceptions=True)
        if not isinstance(opened, BaseException):
            await opened.close()

    async def _open(self) -> Sandbox:
        sandbox = await asyncio.to_thread(self._open_sandbox)
        try:
            await sandbox.start()
        except BaseException:
            await sandbox.close()
            raise
        log.info("sandbox for tools", driver=sandbox.name, missing=sandbox.missing)
        return sandbox


def _tell(opening: asyncio.Task[Sandbox]) -> None:
    if opening.cancelled():
        return
    fault = opening.exception()
    if fault is not None:
        log.warning("no sandbox for tools yet", reason=str(fault))
