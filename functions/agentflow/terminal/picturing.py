"""``agentflow graph``: a workflow's plan as a picture, or a run's, with where it is."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.core.picture import mermaid
from agentflow.core.plan import Plan
from agentflow.core.planner import PlanState
from agentflow.errors import Rejected
from agentflow.terminal.loading import compile_file, is_file


async def draw(settings: Settings, what: str) -> str:
    """Mermaid text of a document's plan, or of a run's by its id."""
    from agentflow.terminal.replaying import is_run, record, replayed

    if not is_run(what):
        if not is_file(what):
            mend = "give a workflow's file, or a run's id"
            raise Rejected(f"{what[:80]!r} is neither", code="usage", path="FILE|RUN", mend=mend)
        return mermaid(compile_file(what))
    plan, again = replayed(await record(settings, what))
    return mermaid(plan, _active(plan, again.state))


def _active(plan: Plan, state: PlanState | None) -> list[str]:
    if state is None or state.ended:
        return []
    cursor: dict[str, Any] = state.cursor
    if plan.tree is None:
        return list(cursor["at"])
    keys = [*cursor["run"].values(), *cursor.get("timers", {}).values()]
    return [plan.tree.nodes[int(key.rpartition("/")[2])].path for key in keys]
