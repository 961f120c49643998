"""A database that was put back from a backup, or moved to another server: what is done before functions begin on it.

It is as it was when the backup was made, and since then the former one may have gone on: calls may have been made that
it knows nothing of. Those that were asked for are not made blindly once more: what declares ``effects: once`` has an
unknown outcome, what costs money is paid for and made again, as after any crash in the middle of a call. Hosts do not
begin on such a database before (see readiness).
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from agentflow.store.admin import administering
from agentflow.store.queries import load

SQL = load("restored.sql")


class Restored(NamedTuple):
    """What was found: when somebody last did something to a run, runs that go on, and the calls that were under way
    and are in doubt: those that may be made once, and those that cost money."""

    as_of: datetime | None
    runs: int
    once: int
    paid: int


async def restored(admin_dsn: str, *, nothing_lost: bool = False) -> Restored:
    """Have functions go on with a restored database. ``nothing_lost``: it was moved while nobody worked on it, and no
    call is in doubt. Whatever it does is done in one transaction; done again it only doubts what is under way then."""
    async with administering(admin_dsn) as conn:
        found = await (await conn.execute(SQL["as_of"])).fetchone()
        assert found is not None
        as_of, runs = found
        once = paid = 0
        if not nothing_lost:
            counted = await (await conn.execute(SQL["doubt_calls"])).fetchone()
            assert counted is not None
            once, paid = counted
            await conn.execute(SQL["note"], {"as_of": as_of})
        await conn.execute(SQL["send_again"])
        await conn.execute(SQL["move_in"])
    return Restored(as_of, runs, once, paid)
