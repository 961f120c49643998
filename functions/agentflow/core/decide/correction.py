"""api: what an administrator corrects about what was spent, as a provider's invoice or a refund says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core import spending
from agentflow.core.decide.holds import freed
from agentflow.core.decision import CORRECTION, Corrected, Decision, Facts, LedgerEntry, Row
from agentflow.core.message import Message
from agentflow.core.run import Run
from agentflow.core.waiting import RUN
from agentflow.errors import Rejected


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Correct what a run has spent, with all accounts that it is charged to; or, without a run, what was spent in a
    scope. ``Rejected`` where more would be given back than the run has spent."""
    data = message.data
    said = (data[name] for name in ("key", "scope", "amount_micro", "reason", "by", "request_hash", "step"))
    row = Corrected(message.tenant, *said)
    if row.scope != RUN:
        return Decision(rows=(row,))
    if run is None:
        mend = "list runs with GET /v1/runs; of one that was removed, correct its workflow"
        raise Rejected("there is no such run", code="not_found", path="run", mend=mend)
    return _of_run(run, row, data, facts)


def _of_run(run: Run, row: Corrected, data: Mapping[str, Any], facts: Facts) -> Decision:
    spent = run.spent_micro + row.amount_micro
    if spent < 0:
        said = f"would give back {-row.amount_micro} micro-dollars of {run.spent_micro} that the run has spent"
        raise Rejected(said, code="below_zero", path="amount_micro", mend="give back less")
    corrected = run.but(
        spent_micro=spent,
        corrections=run.corrections + 1,
        # It has been billed, whatever the run might spend: it gets nothing more.
        frozen=run.frozen or (row.amount_micro > 0 and spent + run.held_micro > run.limit_micro),
    )
    entry = LedgerEntry(
        row.step or 0, corrected.corrections, "correct", row.amount_micro, 0, CORRECTION,
        {"key": row.key, "reason": row.reason, "by": row.by},
    )  # fmt: skip
    task, alias = data.get("task") or "", data.get("alias")
    counted, told = spending.corrected(corrected, facts.plan, task, row.amount_micro, alias)
    rows: tuple[Row, ...] = (entry, row, *told)
    return Decision(counted, (*rows, *freed(counted)) if counted.short else rows)
