"""Having a plan written over HTTP."""

from __future__ import annotations

from typing import Any

from agentflow.wire.document import compile_document

from .test_human import registered
from .world import World, problem

FIND = {"kind": "tool", "use": "std.echo", "in": {"facts": "topic"}, "out": {"facts": "string"}}
PLANNED: dict[str, Any] = {
    "agentflow": "plan/v1", "kind": "bt", "name": "by-hand", "limits": {"steps": 5, "usd": 1},
    "input": {"topic": "string"}, "vars": {"facts": "string"}, "tasks": {"find": FIND}, "root": "find",
}  # fmt: skip


async def test_a_goal_for_the_tasks_of_a_workflow_becomes_one_of_its_own(world: World) -> None:
    await registered(world, PLANNED)
    body = {"workflow": "by-hand", "goal": "Find out about {topic}.", "use": "small", "input": {"topic": "bees"}}
    accepted = (await world.a.http.post("/v1/plans", json=body)).json()
    assert (accepted["workflow"], accepted["version"]) == ("by-hand-goal", 1)
    document = (await world.a.http.get("/v1/workflows/by-hand-goal")).json()["document"]
    assert document["plan"] == {"by": "llm", "kind": "bt", "goal": "Find out about {topic}.", "use": "small"}
    planning = compile_document(document).planning
    assert planning is not None
    assert planning.tasks == ("find",)
    (message,) = [each for each in world.engine.submitted if each.name == "run.requested"]
    assert message.data["only_plan"] is True
    again = (await world.a.http.post("/v1/plans", json=body)).json()
    assert (again["workflow"], again["version"]) == ("by-hand-goal", 1)


async def test_a_plan_is_only_written_for_what_can_be_pursued(world: World) -> None:
    await registered(world, PLANNED)
    for body, status, code, path in (
        ({"workflow": "by-hand"}, 422, "no_goal", "goal"),
        ({"workflow": "nobody", "goal": "x"}, 404, "not_found", None),
        ({"workflow": "by-hand", "goal": "About {nobody}", "use": "small"}, 422, "invalid_plan", "plan.goal"),
        ({"workflow": "by-hand", "goal": "x"}, 422, "no_model", "use"),
        ({"workflow": "by-hand", "goal": "x", "use": "huge"}, 422, "invalid_plan", "plan.use"),
        ({"workflow": "by-hand", "goal": "x", "use": "small", "tasks": ["y"]}, 422, "invalid_plan", "plan.tasks[0]"),
        ({"workflow": "by-hand", "goal": "x", "use": "small"}, 422, "invalid_input", "input.topic"),
    ):
        refused = problem(await world.a.http.post("/v1/plans", json=body), status, code)
        if path is not None:
            assert refused["errors"][0]["path"] == path, refused
