"""Plans that a model writes: a goal in place of a plan becomes a machine that has one written, judged and run.

    proposing -> judging -> (approving) -> following -> keeping -> planned
        ^____________|            what judging finds at fault is told to the model, at most three times
    otherwise: falling back on a workflow that is named for that, or failure with the faults

The machine is an ordinary one: a model proposes as it answers any llm task, a person approves as in any human task, and
the plan, once it is frozen under a name with its hash, runs as another workflow does. What is particular is ``judge``
and ``keep``, which need nobody outside: the planner does them itself, at once (``core.planning``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentflow.core.canonical import digest, undone
from agentflow.core.draft import micro
from agentflow.core.plan import Plan, Planning
from agentflow.core.planning_prompt import prompt, system
from agentflow.core.prompt import placeholders

REPAIRS = 3
STEPS = 3 * (REPAIRS + 1) + 6
RESERVED = "planning"
"""How the names of the machine's own tasks, states and variables begin."""

CHILD_NAME = "planning_workflow"
ONLY = "planning_only"
_VARS = {
    CHILD_NAME: "string", ONLY: "bool", "planning_document": "json", "planning_draft": "json",
    "planning_faults": "string", "planning_why": "string", "planning_tries": "int", "planning_outcome": "json",
}  # fmt: skip

AUTHOR = {
    "tasks.planning_propose": "plan", "tasks.planning_propose.prompt": "plan.goal",
    "tasks.planning_propose.in": "plan.goal",
    "tasks.planning_approve": "plan.approve", "tasks.planning_approve.use": "plan.approve.by",
    "tasks.planning_fall_back": "plan.fallback", "tasks.planning_fall_back.use": "plan.fallback",
}  # fmt: skip
"""Where the parts of the machine were written: path -> path."""

Document = Mapping[str, Any]


def expand(document: Document) -> dict[str, Any]:
    """The machine that pursues a goal, as a canonical document."""
    goal = document["plan"]
    whole = {key: value for key, value in document.items() if key != "plan"}
    output = document.get("output") or document.get("vars", {})
    return whole | {
        "kind": "fsm",
        "limits": {**document["limits"], "steps": STEPS},
        "vars": {**document.get("vars", {}), **_VARS},
        "output": {
            **{name: f"{ONLY} ? dyn(null) : planning_outcome.{name}" for name in output},
            CHILD_NAME: CHILD_NAME,
        },
        "tasks": {**document["tasks"], **_tasks(document, goal)},
        "initial": "planning_start",
        "states": _states(goal),
    }


def pursued(plan: Plan, document: Document) -> Plan:
    """``plan``, compiled from the expanded ``document``, as the plan of the goal, with what a proposal is judged by."""
    kept = {key: value for key, value in document.items() if key not in ("plan", "trigger", "description")}
    goal = document["plan"]
    abilities = {key: kept[key] for key in ("tasks", "tools", "agents", "input", "vars", "output") if key in kept}
    wanted = {"goal": goal.get("class") or goal["goal"], "kind": goal["kind"], "tasks": allowed(document)}
    limits = dict(document["limits"])
    if "usd" in limits:
        limits["usd"] = round(limits["usd"] - goal.get("usd", 0), 6)
    planning = Planning(
        base={**kept, "limits": limits},
        kind=goal["kind"],
        tasks=allowed(document),
        key=digest({"goal": wanted, "of": abilities}),
        cache=goal.get("cache", True),
    )
    return replace(plan, kind="goal", hash=digest(document), document=dict(document), planning=planning)


def allowed(document: Document) -> tuple[str, ...]:
    """The tasks that a plan for the goal may run."""
    undoing = {task["undo"] for task in document["tasks"].values() if undone(task, document["tasks"])}
    return tuple(document["plan"].get("tasks") or sorted(set(document["tasks"]) - undoing))


# ------------------------------------------------------------------------------------------------ the machine


def _tasks(document: Document, goal: Document) -> dict[str, Any]:
    given = {name: name for name in (*document.get("input", {}), *document.get("vars", {}))}
    seen = sorted(placeholders(goal["goal"]))
    tasks: dict[str, Any] = {
        "planning_propose": {
            "kind": "llm", "use": goal["use"],
            "prompt": prompt(document, allowed(document)), "system": system(goal["kind"]),
            "in": {name: name for name in (*seen, "planning_draft", "planning_faults")},
            "max_tokens": goal.get("max_tokens", 4_096), "timeout": goal.get("timeout", "120s"),
            "retry": {"max": 3}, "reply": (allowed(document), goal["kind"]),
        },
        "planning_judge": {"kind": "judge", "in": {"draft": "planning_draft"}},
        "planning_keep": {"kind": "keep", "in": {CHILD_NAME: CHILD_NAME}},
        "planning_follow": {"kind": "workflow", "use": "", "in": {**given, CHILD_NAME: CHILD_NAME}},
    }  # fmt: skip
    if "usd" in document["limits"]:
        rest = micro(document["limits"]["usd"]) - micro(goal.get("usd", 0))
        tasks["planning_follow"]["usd"] = max(rest, 0) / 1_000_000
    if "approve" in goal:
        asked = {"goal": json.dumps(goal["goal"][:800]), "plan": "planning_document"}
        approve = {"kind": "human", "use": goal["approve"]["by"], "in": asked}
        until = {key: value for key, value in goal["approve"].items() if key == "timeout"}
        tasks["planning_approve"] = {**approve, "out": {"ok": "bool", "why": "string"}, **until}
    if "fallback" in goal:
        usd = {key: value for key, value in tasks["planning_follow"].items() if key == "usd"}
        tasks["planning_fall_back"] = {"kind": "workflow", "use": goal["fallback"], "in": given} | usd
    return tasks


def _states(goal: Document) -> dict[str, Any]:
    frozen = "planning_approving" if "approve" in goal else "planning_frozen"
    falling = "planning_falling_back" if "fallback" in goal else "planning_failed"
    unplanned = {"event": "failed", "set": {"planning_why": "event.message"}, "to": falling}
    states: dict[str, Any] = {
        "planning_start": {
            "transitions": [{"if": f"{CHILD_NAME} != ''", "to": "planning_frozen"}, {"to": "planning_proposing"}]
        },
        "planning_proposing": {
            "run": "planning_propose", "visits": REPAIRS + 1,
            "transitions": [
                {"event": "done", "set": {"planning_draft": "result"}, "to": "planning_judging"},
                unplanned,
            ],
        },
        "planning_judging": {
            "run": "planning_judge", "visits": REPAIRS + 1,
            "transitions": [
                {
                    "event": "done", "if": "result.fits",
                    "set": {CHILD_NAME: "result.workflow", "planning_document": "result.document"}, "to": frozen,
                },
                {
                    "event": "done", "if": f"planning_tries < {REPAIRS}",
                    "set": {"planning_faults": "result.faults", "planning_tries": "planning_tries + 1"},
                    "to": "planning_proposing",
                },
                {"event": "done", "set": {"planning_why": "result.faults"}, "to": falling},
            ],
        },
        "planning_frozen": {"transitions": [{"if": ONLY, "to": "planned"}, {"to": "planning_following"}]},
        "planning_following": {
            "run": "planning_follow",
            "transitions": [
                {"event": "done", "set": {"planning_outcome": "result"}, "to": "planning_keeping"},
                {"event": "failed", "set": {"planning_why": "event.message"}, "to": "planning_failed"},
            ],
        },
        "planning_keeping": {
            "run": "planning_keep",
            "transitions": [{"event": "done", "to": "planned"}, {"event": "failed", "to": "planned"}],
        },
        "planning_failed": {"final": "failure", "reason": "planning_why"},
        "planned": {"final": "success"},
    }  # fmt: skip
    if "approve" in goal:
        states["planning_approving"] = {"run": "planning_approve", "visits": REPAIRS + 1, "transitions": [
            {"event": "done", "if": "result.ok", "to": "planning_frozen"},
            {
                "event": "done", "if": f"planning_tries < {REPAIRS} && result.why != ''", "to": "planning_proposing",
                "set": {"planning_faults": "'a person said: ' + result.why", "planning_tries": "planning_tries + 1"},
            },
            {"event": "done", "set": {"planning_why": "'not approved: ' + result.why"}, "to": falling},
            {"event": "timeout", "set": {"planning_why": "'nobody approved the plan in time'"}, "to": falling},
            {"event": "failed", "set": {"planning_why": "event.message"}, "to": falling},
        ]}  # fmt: skip
    if "fallback" in goal:
        states["planning_falling_back"] = {"run": "planning_fall_back", "transitions": [
            {"event": "done", "set": {"planning_outcome": "result"}, "to": "planned"},
            {"event": "failed", "set": {"planning_why": "event.message"}, "to": "planning_failed"},
        ]}  # fmt: skip
    return states
