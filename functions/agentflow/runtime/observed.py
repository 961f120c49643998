"""What is seen from outside of a committed batch: metrics, and a log line for what a person would ask about."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from agentflow.observe import logs, metrics

if TYPE_CHECKING:
    from agentflow.core.run import Run
    from agentflow.runtime.batch import Batch, Item

_log = logs.logger("reactor")
KINDS = {"invoke_llm": "llm", "run_tool": "tool"}


def committed(batch: Batch, seconds: float) -> None:
    """Count a batch that has been committed and say which runs and steps ended in it."""
    functions = Counter(item.consumer for item, _ in batch.decided)
    for function, count in functions.items():
        metrics.transaction(function, count, seconds)
    reached = batch.reached
    steps: dict[str, list[dict[str, Any]]] = {}
    for item, run in batch.decided:
        if item.consumer in KINDS:
            steps.setdefault(item.consumer, []).append(item.message.data)
            if item.message.data["status"] == "failed":
                _failed(item)
        if reached and run is not None and run.id in reached:
            _run(item, run)
    if "account_cost" in functions:
        for leave in batch.leaving:
            if leave.message.name == "budget.violation":
                metrics.violated(frozen=leave.message.data["frozen"])
    for function, reports in steps.items():
        metrics.steps_ended(KINDS[function], reports)


def _failed(item: Item) -> None:
    data = item.message.data
    _log.warning(
        "step failed",
        tenant=str(item.message.tenant),
        run=data["run"],
        step=data["step"],
        attempt=data["attempt"],
        task=data["task"],
        code=data["error"]["code"],
        event_id=item.message.id,
        trace_id=trace_id(item.message.trace),
    )


def _run(item: Item, run: Run) -> None:
    metrics.run_reached(run.status)
    if not run.terminal:
        return
    metrics.COST.inc(run.spent_micro)
    _log.info(
        "run ended",
        tenant=str(run.tenant),
        run=str(run.id),
        workflow=run.workflow,
        status=run.status,
        steps=run.steps,
        spent_micro=run.spent_micro,
        code=(run.error or {}).get("code"),
        event_id=item.message.id,
        trace_id=trace_id(run.trace),
    )


def trace_id(traceparent: str | None) -> str | None:
    """The trace a traceparent names."""
    return traceparent[3:35] if traceparent else None
