"""Memory: runs as this process wrote them last, so that the next message about one needs no look at the database.

What is remembered may be old: somebody else may have written since. Nothing here is trusted without the fence (see
update_runs in queries.sql), so forgetting costs a round trip and remembering wrongly costs another.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from uuid import UUID

from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.run import NONE, Run
from agentflow.runtime.batch import Item
from agentflow.runtime.plans import Plans

NEW = "run.requested"


class Memory:
    """At most ``size`` runs, the least recently written forgotten first."""

    def __init__(self, size: int, plans: Plans) -> None:
        self._size = size
        self._plans = plans
        self._runs: OrderedDict[UUID, Run] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def keep(self, runs: Mapping[UUID, Run], chains: Mapping[UUID, bytes]) -> None:
        """Runs that have just been written, and the chains of those that left rows behind."""
        if not self._size:
            return
        mine = self._runs
        for run_id, run in runs.items():
            if run.terminal:
                mine.pop(run_id, None)
            else:
                # What it was given is never read again.
                chain = chains.get(run_id, run.chain)
                mine[run_id] = run.but(rev=run.rev + 1, input=NONE, chain=chain)
                mine.move_to_end(run_id)
        while len(mine) > self._size:
            mine.popitem(last=False)

    def forget(self, runs: Iterable[UUID]) -> None:
        for run in runs:
            self._runs.pop(run, None)

    def split(self, items: list[Item]) -> tuple[list[Item], list[Item]]:
        """The items that can be decided upon from memory, and those that can't; a run's items stay together."""
        if not self._size:
            return [], items
        others = [item for item in items if not self._suffices(item)]
        if not others:
            return items, []
        runs = {item.message.run for item in others}
        known = [item for item in items if item.message.run not in runs]
        return known, [item for item in items if item.message.run in runs]

    def widest(self, items: Iterable[Item]) -> int:
        """How many steps are open in the run that has the most of them."""
        return max((len(run.open) for run in self.runs(items).values()), default=0)

    def runs(self, items: Iterable[Item]) -> dict[UUID, Run]:
        """What is known of the items' runs."""
        found = {}
        for item in items:
            run = self._runs.get(item.message.run)
            if run is not None:
                found[run.id] = run
        return found

    def plan(self, message: Message, run: Run | None) -> tuple[Plan | None, int | None]:
        """The plan and version of a run, or of one that is asked for."""
        if run is not None and run.version is not None:
            return self._plans.get(message.tenant, run.workflow, run.version), run.version
        version = message.data["version"]
        return self._plans.get(message.tenant, message.data["workflow"], version), version

    def _suffices(self, item: Item) -> bool:
        message = item.message
        if item.once is not None:
            return False
        run = self._runs.get(message.run)
        if run is None:
            # A run that is asked for at the door is new, until the database says that its id is taken. One that plan is
            # told of has been accepted, mostly by another process.
            new = message.name == NEW and item.consumer == "api"
            version = message.data["version"] if new else None
            return version is not None and self._has(message, message.data["workflow"], version)
        if run.version is None or message.name == "event.received":
            return False
        if message.name == "timer.fired" and message.data["kind"] in ("retry", "hold"):
            return False  # needs what the last attempt was given, or whether a call was claimed
        return self._has(message, run.workflow, run.version)

    def _has(self, message: Message, workflow: str, version: int) -> bool:
        plan = self._plans.get(message.tenant, workflow, version)
        # What is to be planned may have been planned before: only the database knows.
        return plan is not None and (plan.planning is None or message.name != NEW)
