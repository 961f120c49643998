"""What is expected after fifty runs: as close as the mean of fifty can be, however the costs of a call are spread."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from statistics import median
from typing import Any
from uuid import UUID, uuid4

import pytest

from agentflow.control.estimates import observed
from agentflow.core.decision import RunSpent
from agentflow.core.estimate import Tariff, expected_micro
from agentflow.core.run import Run
from agentflow.store.admin import create_tenant
from agentflow.store.changes import Changes
from agentflow.store.control import ControlStore
from agentflow.store.postgres import PostgresStore
from agentflow.wire.document import compile_document

RUNS, TRIALS, MEAN = 50, 40, 10_000
EACH = compile_document({
    "agentflow": "plan/v1", "kind": "bt", "name": "each", "limits": {"steps": 99, "usd": 1000},
    "input": {"words": "list(string)"},
    "tasks": {"pay": {"kind": "tool", "use": "std.echo", "in": {"text": "item"}, "usd": 1}},
    "root": {"map": "pay", "over": "words", "max": 20},
})  # fmt: skip
Draw = Callable[[random.Random], float]
# What a call costs in parts of its mean, and by how much it is spread: standard deviation over mean.
COSTS: dict[str, tuple[Draw, float]] = {
    "even": (lambda chance: chance.uniform(0.5, 1.5), 0.29),
    "skewed": (lambda chance: chance.lognormvariate(-0.125, 0.5), 0.53),
    "branch": (lambda chance: 2.5 * (chance.random() < 0.4), 1.22),  # a call that most runs do not make
    "loop": (lambda chance: _tries(chance) / 1.75, 0.48),  # tried again until it is right, three times at most
    "wide": (lambda chance: chance.expovariate(1), 1.0),
    "heavy": (lambda chance: chance.lognormvariate(-0.5, 1.0), 1.31),
}


def _tries(chance: random.Random) -> int:
    return next((n for n in (1, 2) if chance.random() < 0.5), 3)


@pytest.mark.parametrize("longest", [1, 9], ids=["once", "for each word"])
async def test_after_fifty_runs_only_chance_is_left(database: Any, longest: int) -> None:
    tenant = await create_tenant(database.admin, "acme")
    engine, api = PostgresStore(database.dsn("agentflow_engine")), ControlStore(database.dsn("agentflow_api"))
    await engine.open()
    await api.open()
    try:
        await _check(engine, api, tenant, longest)
    finally:
        await engine.close()
        await api.close()


async def _check(engine: PostgresStore, api: ControlStore, tenant: UUID, longest: int) -> None:
    errors = {}
    for name, (draw, spread) in COSTS.items():
        found = []
        for trial in range(TRIALS):
            workflow, chance = f"{name}-{trial}", random.Random(f"{name} {trial} {longest}")
            made = Changes()
            for _ in range(RUNS):
                starts = chance.randint(1, longest)
                cost = sum(round(MEAN * draw(chance)) for _ in range(starts))
                seen = {"pay": (starts, starts, 0, 0, cost)}
                made.row(Run(tenant, uuid4(), workflow, 1), RunSpent(1, "succeeded", seen, cost))
            await engine.commit([tenant], made)
            rows = await api.observed(tenant, workflow, 1, 90)
            given = {"words": ["w"] * chance.randint(1, longest)}
            expected = expected_micro(EACH, Tariff({}, {}, {}), given, 10**12, observed(rows, 1))
            found.append(abs(expected / (MEAN * len(given["words"])) - 1))
        # The mean of so many calls is off by so much, half of the time; no estimator knows more of the next run.
        floor = 0.6745 * spread / math.sqrt(RUNS * (1 + longest) / 2)
        errors[name] = median(found)
        assert errors[name] <= 1.5 * floor, (name, errors[name], floor)
    print({name: f"{error:.1%}" for name, error in errors.items()})
    if longest > 1:
        assert median(errors.values()) <= 0.05, errors
