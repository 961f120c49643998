"""invoke_llm and run_tool: record the one result an attempt gets, and what it cost.

The performer reports what it saw (a step.completed without a cost); this decides whether the run still waits
for it. The first report of an attempt wins; a report for a halted or ended step changes nothing but the money.
"""

from __future__ import annotations

from typing import Any

from immutables import Map

from agentflow.core import spending
from agentflow.core.agents import around
from agentflow.core.decide.ending import known
from agentflow.core.decision import NOTHING, Decision, Facts, Row, StepClosed
from agentflow.core.message import Message
from agentflow.core.money import bill
from agentflow.core.plan import Plan
from agentflow.core.run import OpenStep, Run
from agentflow.core.types import Mismatch, conform


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Close the attempt with its result, once, and tell account_cost and dispatch."""
    run = known(run, message)
    assert facts.plan is not None, "a run with an open step has a plan"
    data = message.data
    step, attempt = data["step"], data["attempt"]
    opened = run.open.get(step)
    if opened is not None and (opened.waits, opened.attempt, opened.epoch) != (
        "call",
        attempt,
        data["epoch"],
    ):
        opened = None
    if opened is None and f"{step}.{attempt}" not in run.halted:
        return NOTHING  # recorded before: what that report said is on its way, and is what counts
    task = facts.plan.tasks[data["task"]]
    usage = data["usage"]
    result = _checked(data, facts.plan)
    billed = bill(run, facts.plan, task, result, run.holds.get(f"{step}.{attempt}", 0))
    result["cost_micro"] = billed.micro
    if billed.violation is not None and "fault" not in usage:
        usage = result["usage"] = {**usage, "fault": billed.violation}
    if opened is None:
        result["late"] = True
        # Under a key of its own, so that it can never be taken for a recorded report of the attempt.
        return Decision(messages=(message._replace(key=f"{step}.{attempt}:late", data=result),))
    closed = StepClosed(
        step=step,
        attempt=attempt,
        opened=opened,
        kind=task.kind,
        status=result["status"],
        output=result["output"],
        error=result["error"],
        usage=usage,
        held_micro=run.holds.get(f"{step}.{attempt}", 0),
        cost_micro=result["cost_micro"],
    )
    tokens = usage["input_tokens"] + usage["output_tokens"]
    recorded = run.but(
        tokens=run.tokens + tokens,
        open=_used(run, step, result["cost_micro"] - closed.held_micro).set(step, opened._replace(waits="decision")),
    )
    rows: tuple[Row, ...] = (closed,)
    if task.kind == "llm" and usage["calls"] and f"{step}.{attempt}" not in run.holds:
        # It costs nothing: there is nothing to settle, but the tokens count all the same.
        alias = data.get("alias")
        version = run.models[alias or task.use].price_version
        recorded, told = spending.settled(
            recorded, facts.plan, task.name, version, usage, 0, 0, data["duration_ms"], alias
        )
        rows = (closed, *told)
    return Decision(run=recorded, rows=rows, messages=(message._replace(data=result),))


def _used(run: Run, step: int, more: int) -> Map[int, OpenStep]:
    """The open steps; where an agent's inner step has cost more or less than was held, its agent's step says so."""
    agent = around(run.plan, step)
    if agent is None or not more or agent not in run.open:
        return run.open
    opened = run.open[agent]
    return run.open.set(agent, opened._replace(used_micro=opened.used_micro + more))


def _checked(data: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """The report, failed if the output is not of the shape the plan declares."""
    task = plan.tasks[data["task"]]
    if data["status"] != "succeeded" or task.out is None:
        return dict(data)
    output = data["output"]
    name = ""
    try:
        fixed = {}
        for name, kind in task.out.items():
            if name not in output:
                raise Mismatch("is missing from the result")
            fixed[name] = conform(output[name], kind)
    except Mismatch as fault:
        message = f"tasks.{task.name}.out.{name}{fault.where}: {fault.message}"
        again = not task.calls_once(plan.tools)  # what the call was for has been done
        error = {"code": "bad_result", "message": message, "retryable": again, "retry_after_ms": None}
        return {**data, "status": "failed", "output": None, "error": error}
    if all(output[name] is value for name, value in fixed.items()):
        return dict(data)
    return {**data, "output": {**output, **fixed}}
