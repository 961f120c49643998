"""What a plan amounts to, for people: its tasks, its size and the most it can do."""

from __future__ import annotations

from agentflow.core import checks_fsm, compile_tree
from agentflow.core.plan import Plan
from agentflow.core.types import JSON


def summarise(plan: Plan) -> dict[str, JSON]:
    """Name, kind, hash, tasks, limits, and ``max_steps``: the worst case, None where only the limit bounds it."""
    if plan.machine is not None:
        size = {"states": sum(state.kind not in ("machine", "region") for state in plan.machine.states)}
        worst = checks_fsm.worst_steps(plan.machine)
    else:
        assert plan.tree is not None
        size = {"nodes": len(plan.tree.nodes)}
        worst = compile_tree.worst_steps(plan.tree.root)
    return {
        "name": plan.name,
        "kind": plan.kind,
        "hash": plan.hash,
        **size,
        "tasks": [{"name": task.name, "kind": task.kind, "use": task.use} for task in plan.tasks.values()],
        "limits": {"steps": plan.limits.steps, "micro": plan.limits.micro, "wall_ms": plan.limits.wall_ms},
        "max_steps": worst,
    }
