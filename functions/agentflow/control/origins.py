"""What a run's history says of where it was: read once, page by page, and decided again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agentflow.core.fork import Fork
from agentflow.core.plan import Plan
from agentflow.errors import Conflict, Rejected
from agentflow.picture.diagram import Mark
from agentflow.picture.position import Trail
from agentflow.store.control import ControlStore
from agentflow.store.forking import Forking, named, started
from agentflow.store.replay import Replay

Row = Mapping[str, Any]
PAGE = 200
"""Lines that are decided again at a time; other requests go on in between."""
MAX_FORKS = 50
"""Most forks in a row: the steps of a run are looked up in so many others."""


class Origins:
    """Finds the decision that started a step, and where a run is now. ``lines``: most lines of history that are read.

    One search at a time: it takes as long as the history is.
    """

    def __init__(self, store: ControlStore, lines: int) -> None:
        self._store = store
        self._most = lines
        self._one = asyncio.Lock()

    async def find(
        self, tenant: UUID, row: Row, plan: Plan, at: int, sets: Mapping[str, Any]
    ) -> tuple[Row, Fork]:
        """The fork of the run ``row`` before its step ``at``, and the run that had started this step.

        Raises ``Rejected`` for a step that was never started or lies too deep, ``Conflict`` where this version decides
        the history otherwise.
        """
        if at > row["steps"]:
            said = f"the run has started {row['steps']} steps, and not step {at}"
            mend = f"choose 1 to {row['steps']}" if row["steps"] else "fork it once it has started a step"
            raise Rejected(said, code="unknown_step", path="at", mend=mend)
        asked = str(row["run_id"])
        async with self._one:
            for _ in range(MAX_FORKS):
                found = await self._search(tenant, row, plan, at, sets)
                if found is not None:
                    return row, found._replace(run=asked)
                row = await self._before(tenant, row)
        raise _too_many()

    async def marks(self, tenant: UUID, row: Row, plan: Plan) -> dict[str, Mark]:
        """Where the run ``row`` is and has been, as marks on the picture of its plan.

        Raises ``Rejected`` where its history is longer than is read, ``Conflict`` where this version decides it
        otherwise.
        """
        run, trail = row["run_id"], Trail()
        results: dict[tuple[int, int], Row] = {}
        outcomes: dict[int, str] = {}
        replay = Replay(plan, row["input"] or {}, results)
        async with self._one:
            while True:
                _, lines = await self._store.history(tenant, run, replay.seq, PAGE)
                rows = await self._store.results(tenant, run, named(lines))
                results.clear()
                results.update({(each["step"], each["attempt"]): each for each in rows})
                outcomes |= {each["step"]: each["status"] for each in rows}
                for line in lines:
                    if not replay.line({**line, "hash": bytes.fromhex(line["hash"])}):
                        said = f"this version decides the run's history otherwise: {replay.found}"
                        raise Conflict(said, code="diverges")
                    trail.see(plan, replay.state, started(line))
                if len(lines) < PAGE:
                    return trail.marks(plan, outcomes)
                if replay.seq >= self._most:
                    said = f"the run's history has more than {self._most} lines"
                    mend = "draw it with: agentflow graph RUN; or have AGENTFLOW_FORK_LINES raised"
                    raise Rejected(said, code="too_long", path="run", mend=mend)

    async def _search(
        self, tenant: UUID, row: Row, plan: Plan, at: int, sets: Mapping[str, Any]
    ) -> Fork | None:
        run = row["run_id"]
        reused = (row["forked_from"] or {}).get("reused", ())
        if len(reused) >= MAX_FORKS:
            raise _too_many()
        forking = Forking(str(run), plan, row["input"], at, reused)
        while not forking.older:
            _, lines = await self._store.history(tenant, run, forking.lines, PAGE)
            if not lines:
                said = f"its history does not say what started step {at}"
                raise Rejected(said, code="unknown_step", path="at", mend="choose another step")
            found = forking.read(lines, await self._store.results(tenant, run, named(lines)), sets)
            if found is not None:
                return found
            if forking.lines >= self._most:
                said = f"step {at} was not started within the first {self._most} lines of the run's history"
                mend = "fork at an earlier step, or have AGENTFLOW_FORK_LINES raised"
                raise Rejected(said, code="too_long", path="at", mend=mend)
        return None

    async def _before(self, tenant: UUID, row: Row) -> Row:
        """The run that this one is a fork of."""
        run = UUID(row["forked_from"]["reused"][0][0])
        found = await self._store.run(tenant, run)
        if found is None:
            said = f"the step was made by run {run}, which has been removed"
            raise Rejected(
                said, code="not_found", path="at", mend="choose a step that the run has made itself"
            )
        return found


def _too_many() -> Rejected:
    said = f"these are forks of forks, {MAX_FORKS} in a row"
    return Rejected(said, code="too_many_forks", path="run", mend="fork an earlier one")
