"""``agentflow audit``: says that nothing was changed, or what; and lists what was sealed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from aged import Past

from agentflow.config import Settings
from agentflow.store.chain import ChainKeys
from agentflow.store.sealing import seal

from .conftest import Command, run
from .test_main import one_line

LINK = "0" * 32


@pytest.fixture
def past(database: Any, environment: pytest.MonkeyPatch) -> Any:
    """A database of this test's own, and the command line of its operator."""
    made = Past(database)
    yield made
    made.close()


async def verified(past: Past, *args: str) -> Any:
    return await run("audit", "verify", "--database", past.database.admin, *args)


async def sealed(past: Past) -> Any:
    keys = ChainKeys(Settings().audit_key)
    return await seal(past.database.dsn("agentflow_relay"), keys)


async def test_all_is_well_until_somebody_changes_something(past: Past) -> None:
    tenant = past.tenant()
    heads = {made.tenant: f"{made.number}:{made.link}" for made in await sealed(past)}
    done = await verified(past)
    assert done.code == 0 and "nothing was changed" in done.out
    one = (await verified(past, "--tenant", str(tenant), "--known", heads[tenant], "--json")).json
    number, _, link = heads[tenant].partition(":")
    assert [(each["tenant"], each["ok"], each["head"]) for each in one] == [
        (str(tenant), True, {"number": int(number), "link": link})
    ]
    with psycopg.connect(past.database.admin) as conn:
        conn.execute("update agentflow.audit set kind = 'x' where tenant_id = %s and n = 1", (tenant,))
    done = await verified(past)
    assert done.code == 1
    assert f"{tenant}: audit: entry 1 (x) was changed" in done.out
    assert "1 findings" in done.out
    found = await verified(past, "--json")
    assert found.code == 1
    assert [each["tenant"] for each in found.json if not each["ok"]] == [str(tenant)]


async def test_what_is_known_elsewhere_and_not_here_is_said(past: Past) -> None:
    tenant = past.tenant()
    await sealed(past)
    done = await verified(past, "--tenant", str(tenant), "--known", f"99:{LINK}")
    assert done.code == 1 and "entry 99 is known elsewhere" in done.out


async def test_a_wrong_key_is_said_and_not_taken_for_tampering_of_each_row(
    past: Past, environment: pytest.MonkeyPatch
) -> None:
    past.tenant()
    await sealed(past)
    environment.setenv("AGENTFLOW_AUDIT_KEY", "quite another key, alas")
    one_line(await verified(past), "AGENTFLOW_AUDIT_KEY", "bytes")  # the comma makes two of it
    environment.setenv("AGENTFLOW_AUDIT_KEY", "quite another key")
    done = await verified(past)
    assert done.code == 1 and "which is not in AGENTFLOW_AUDIT_KEY" in done.out


async def test_bad_words_are_refused(past: Past) -> None:
    one_line(await verified(past, "--known", f"1:{LINK}"), "--tenant")
    one_line(await verified(past, "--tenant", "x"), "--tenant", "tenant create")
    for known in ("1", "x:" + LINK, "1:" + LINK[1:], "1:" + "g" * 32):
        one_line(await verified(past, "--tenant", str(past.tenant()), "--known", known), "NUMBER:LINK")


async def test_what_was_sealed_is_listed(agentflow: Command) -> None:
    listed = await agentflow("audit", "list", "--json")
    assert listed.code == 0
    assert isinstance(listed.json, list)
    assert (await agentflow("audit", "list")).code == 0
