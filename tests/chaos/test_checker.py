"""The checker catches what it has to: each planted bug is named by the invariant it breaks, and no bug by none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import seams
from chaos.bugs import BUGS
from chaos.report import Script
from chaos.round import play
from chaos.servers import Servers
from chaos.violation import INVARIANTS

RUNS = 16


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers of this module's own: they say when a row was committed."""
    servers = Servers(tmp_path_factory.mktemp("chaos"))
    asyncio.run(servers.start())
    yield servers
    asyncio.run(servers.stop())


@pytest.mark.parametrize("name", seams.SEAMS)
def test_every_seam_is_there(name: str) -> None:
    seams.find(name)


def test_every_invariant_has_a_bug_that_breaks_it() -> None:
    assert {bug.invariant for bug in BUGS.values()} == INVARIANTS.keys()


async def test_without_a_bug_nothing_is_found(servers: Servers, tmp_path: Path) -> None:
    script = Script("clean", "one", 40, over_s=3.0, calm=True, rest_s=30.0)
    report = await play(servers, script, tmp_path / "round")
    assert report.violations == []
    assert report.counts["runs succeeded"] > 25
    assert report.counts["calls_repeated"] == 0


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_caught(servers: Servers, tmp_path: Path, name: str) -> None:
    bug = BUGS[name]
    rest_s = 4.0 if bug.stuck else 20.0
    script = Script(
        f"bug {name}",
        bug.form,
        RUNS,
        over_s=1.0,
        calm=True,
        rest_s=rest_s,
        bug=name,
        only=bug.only,
        trouble=0.0,
    )
    report = await play(servers, script, tmp_path / "round")
    found = {violation.invariant for violation in report.violations}
    assert bug.invariant in found, f"found instead: {[str(violation) for violation in report.violations[:5]]}"
