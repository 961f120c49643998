"""The effect of run_tool: one tool call for one attempt of a step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.core.performed import NO_USAGE, Begins, Performed, ignored
from agentflow.core.plan import Plan
from agentflow.errors import Rejected
from agentflow.tools import ToolCall, Tools
from agentflow.tools.builtin import BUILTINS
from agentflow.wire.claim import is_ref
from agentflow.wire.document import compile_stored

KEPT = 500
ONE_CALL = {**NO_USAGE, "calls": 1}


class Reader(Protocol):
    """Where tool code and files come from."""

    async def read_workflow(self, tenant: UUID, name: str, version: int) -> Mapping[str, Any] | None: ...

    async def read_blob(self, tenant: UUID, ref: str) -> bytes | None: ...


class RunTool:
    """Calls the tool a request names, with its files at hand."""

    def __init__(self, tools: Tools, reader: Reader) -> None:
        self._tools = tools
        self._reader = reader
        self._plans: OrderedDict[tuple[UUID, str, int], Plan] = OrderedDict()

    def at_once(self, request: Message) -> Performed | None:
        """A built-in tool's result: it needs neither the workflow nor a sandbox."""
        builtin = BUILTINS.get(request.data["tool"])
        return Performed(builtin(_call(request)), dict(ONE_CALL)) if builtin is not None else None

    async def perform(self, request: Message, begins: Begins = ignored) -> Performed:
        asked = request.data
        plan = await self._plan(request.tenant, asked["workflow"], asked["version"])
        task = plan.tasks[asked["task"]]
        files = {}
        for name in task.files:
            ref = asked["input"].get(name)
            if is_ref(ref):
                files[ref] = await self._file(request.tenant, ref, f"tasks.{task.name}.in.{name}")
        call = _call(request)._replace(spec=plan.tools.get(asked["tool"]), files=files, begins=begins)
        return Performed(await self._tools.call(call), dict(ONE_CALL))

    async def close(self) -> None:
        await self._tools.close()

    async def _plan(self, tenant: UUID, name: str, version: int) -> Plan:
        key = (tenant, name, version)
        plan = self._plans.get(key)
        if plan is None:
            document = await self._reader.read_workflow(tenant, name, version)
            if document is None:
                raise Rejected(
                    f"there is no workflow {name}@{version}", code="unknown_workflow", path="workflow"
                )
            plan = self._plans[key] = compile_stored(dict(document))
            if len(self._plans) > KEPT:
                self._plans.popitem(last=False)
        return plan

    async def _file(self, tenant: UUID, ref: str, path: str) -> bytes:
        content = await self._reader.read_blob(tenant, ref)
        if content is None:
            raise Rejected(
                f"there is no file {ref}", code="unknown_file", path=path, mend="submit it as a run's input"
            )
        return content


def _call(request: Message) -> ToolCall:
    asked = request.data
    return ToolCall(
        tenant=request.tenant,
        run=request.run,
        step=asked["step"],
        attempt=asked["attempt"],
        tool=asked["tool"],
        spec=None,
        input=asked["input"],
        timeout_s=asked["timeout_ms"] / 1000,
        key=asked.get("key") or "",
    )


async def open_effect(settings: Settings, store: Reader) -> RunTool:
    """What run_tool performs. The sandbox starts in the background: the first tool does not wait for all of it. One
    that is required is waited for here: ``RetryLater`` says why there is none yet."""
    tools = Tools.from_settings(settings)
    if not settings.sandbox_required:
        tools.warm()
        return RunTool(tools, store)
    try:
        await tools.sandbox()
    except BaseException:
        await tools.close()
        raise
    return RunTool(tools, store)
