"""A short storm in each form: real processes, real servers, faults by seed, and not one invariant violated.

AGENTFLOW_CHAOS_SEED chooses what happens; a failure says which it was. ``make chaos SEED=1 N=500`` is the long form.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from chaos.report import Script
from chaos.round import play
from chaos.servers import Servers

SEED = os.environ.get("AGENTFLOW_CHAOS_SEED") or str(random.SystemRandom().randrange(2**32))
RUNS = 50


@pytest.mark.parametrize(
    "form",
    [pytest.param(form, marks=pytest.mark.xdist_group(f"chaos-{form}")) for form in ("apart", "together")],
)
async def test_no_invariant_is_violated_whatever_befalls(tmp_path: Path, form: str) -> None:
    servers = Servers(tmp_path)
    await servers.start()
    try:
        script = Script(
            f"{SEED}/{form}",
            form,
            RUNS,
            in_flight=30,
            over_s=8.0,
            every_s=0.8,
            stop_s=4.0,
            poison=2,
            rest_s=90.0,
        )
        report = await play(servers, script, tmp_path / "round")
    finally:
        await servers.stop()
    assert report.violations == [], f"AGENTFLOW_CHAOS_SEED={SEED}\n" + "\n".join(report.lines())
    assert sum(report.faults.values()) > 3
    assert report.counts["runs"] >= RUNS
