"""The books: everything a database holds after quiescence, read once, for the checks to look at from all sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agentflow.core.plan import Plan
from agentflow.wire.document import compile_document
from chaos.client import Tenant
from chaos.farside import FarSide
from chaos.fleet import Fleet
from chaos.listener import Listener
from chaos.load import Submission
from chaos.poison import Poison
from chaos.sampler import Sampler
from chaos.statements import Row, Statements

TABLES = (
    "runs",
    "steps",
    "history",
    "ledger",
    "spend",
    "outbox",
    "timers",
    "subscriptions",
    "inbox",
    "parked",
    "workflows",
    "claims",
    "warned",
)
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
Attempt = tuple[UUID, int, int]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round was made of. ``calm``: no fault was injected. ``quiet``: it came to rest in time."""

    submissions: list[Submission]
    poisons: list[Poison]
    tenants: list[Tenant]
    sampler: Sampler
    listener: Listener
    far: FarSide
    fleet: Fleet
    calm: bool
    quiet: bool


@dataclass(slots=True)
class Books:
    """Tables by name, and the same rows by what they belong to."""

    round: Round
    tables: Mapping[str, list[Row]]
    runs: dict[UUID, Row] = field(default_factory=dict)
    by_token: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    steps: dict[UUID, list[Row]] = field(default_factory=lambda: defaultdict(list))
    attempts: dict[Attempt, Row] = field(default_factory=dict)
    history: dict[UUID, list[Row]] = field(default_factory=lambda: defaultdict(list))
    ledger: dict[UUID, list[Row]] = field(default_factory=lambda: defaultdict(list))
    plans: dict[tuple[UUID, str, int], Plan] = field(default_factory=dict)

    @classmethod
    async def read(cls, sql: Statements, around: Round) -> Books:
        """Read everything in one snapshot."""
        await sql.run("begin")
        try:
            books = cls(around, {name: await sql.rows(name) for name in TABLES})
        finally:
            await sql.rollback()
        for run in books.tables["runs"]:
            books.runs[run["run_id"]] = run
            books.by_token[(run["input"] or {}).get("token", "")].append(run)
        for step in books.tables["steps"]:
            books.steps[step["run_id"]].append(step)
            books.attempts[step["run_id"], step["step"], step["attempt"]] = step
        for line in books.tables["history"]:
            books.history[line["run_id"]].append(line)
        for entry in books.tables["ledger"]:
            books.ledger[entry["run_id"]].append(entry)
        compiled: dict[str, Plan] = {}
        for row in books.tables["workflows"]:
            text = str(row["document"])
            if text not in compiled:
                compiled[text] = compile_document(row["document"])
            books.plans[row["tenant_id"], row["name"], row["version"]] = compiled[text]
        return books

    def plan(self, run: Row) -> Plan | None:
        """The plan that a run has pinned."""
        return self.plans.get((run["tenant_id"], run["workflow"], run["version"])) if run["version"] else None

    def key_of(self, step: Row) -> str | None:
        """What the far side calls a step's call by; None for steps that do not go there."""
        given: Mapping[str, Any] = step["input"] or {}
        if step["task"].endswith("--turn"):
            agent = self.attempts.get((step["run_id"], given.get("agent", 0), 1))
            asked: Mapping[str, Any] = (agent and agent["input"]) or {}
            return f"{asked['token']}/seek/{asked['n']}/{given['turn']}" if asked else None
        if step["kind"] == "llm":
            return f"{given.get('token')}/{step['task']}/{given.get('n')}"
        if step["task"].endswith("effect"):
            return str(given.get("key", "")).strip("[]")
        if step["task"] == "charge":
            return f"{given.get('token')}/charge/0"
        return None


def nonce_of(step: Row) -> str | None:
    """The nonce in the accepted result of a step that called the far side."""
    output: Mapping[str, Any] = step["output"] or {}
    if "nonce" in output:
        return str(output["nonce"])
    text = str(output.get("text", ""))
    return text.removeprefix("nonce ") if text.startswith("nonce ") else None
