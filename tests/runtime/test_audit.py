"""The audit chain: whatever is changed, deleted, moved, cut off or rewritten in the database is found, and said where.

Every test tampers as a superuser, who no wall stops; none of them knows the key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from house import House, eventually

from agentflow.core.message import Message
from agentflow.store.admin import issue_key, revoke_key
from agentflow.store.audit import Head, Verification, verify
from agentflow.store.chain import ChainKeys
from agentflow.store.sealing import Seal, seal

PRICED = {
    "agentflow": "plan/v1", "kind": "bt", "name": "counted", "limits": {"steps": 20, "usd": 0.1},
    "vars": {"n": "int"},
    "tasks": {
        "add": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}},
        "ask": {"kind": "llm", "use": "fast", "prompt": "say it", "out": {"text": "string"}},
        "paid": {"kind": "event", "use": "com.example.paid"},
    },
    "root": {"type": "sequence", "children": [
        {"type": "task", "task": "add", "set": {"n": "result.n"}}, "ask",
        {"type": "task", "task": "add", "set": {"n": "result.n"}}]},
}  # fmt: skip
WAITING = {
    **PRICED, "name": "waiting",
    "root": {"type": "sequence", "children": [{"type": "task", "task": "add", "set": {"n": "result.n"}}, "paid"]},
}  # fmt: skip


@dataclass(slots=True)
class Books:
    """Two runs that have ended and one that waits, all sealed."""

    house: House
    keys: ChainKeys
    ended: UUID
    other: UUID
    open: UUID
    head: Head

    async def verify(self, **known: Any) -> Verification:
        return await verify(
            self.house.database.dsn("agentflow_engine"), self.keys, self.house.tenant, **known
        )

    async def findings(self) -> list[str]:
        return (await self.verify()).findings

    async def seal(self) -> list[Seal]:
        return await seal(self.house.database.dsn("agentflow_relay"), self.keys)

    async def tamper(self, *statements: str, **values: Any) -> None:
        """What somebody does who has the database and not the key; ``%(run)s`` is the first run."""
        named = {
            "run": self.ended,
            "other": self.other,
            "open": self.open,
            "tenant": self.house.tenant,
        } | values
        async with await psycopg.AsyncConnection.connect(self.house.database.admin) as conn:
            await conn.execute("set search_path = agentflow")
            for statement in statements:
                done = await conn.execute(statement, named)
                assert done.rowcount != 0, f"nothing was tampered with: {statement}"


@pytest.fixture
async def books(house: House) -> Books:
    keys = ChainKeys(house.settings.audit_key)
    (house.settings.script_dir / "any.model.yaml").write_text("rules: [{prompt: say, reply: {text: done}}]\n")
    await house.register(PRICED)
    await house.register(WAITING)
    async with house.host(relay=False) as host:
        ended = await house.submit(host, "counted")
        other = await house.submit(host, "counted")
        waits = await house.submit(host, "waiting")
        for run in (ended, other):
            assert (await house.ended(run))["status"] == "succeeded"
        await eventually(lambda: house.rows("select 1 from subscriptions"))
    made = Books(house, keys, ended, other, waits, Head(0, ""))
    (sealed,) = await made.seal()
    made.head = Head(sealed.number, sealed.link)
    clean = await made.verify()
    assert clean.findings == []
    assert (clean.runs, clean.pending, clean.uncovered) == (3, 0, 0)
    assert clean.head == made.head
    return made


async def test_every_row_that_runs_leave_behind_is_covered(books: Books) -> None:
    counts = [
        (await books.house.rows(f"select count(*) as n from {table}"))[0]["n"]
        for table in ("steps", "history", "ledger")
    ]
    assert all(counts)
    assert (await books.verify()).rows == sum(counts)


PATCHED = "overlay(chain placing '\\x{}' from {})"
EDITS = {
    "a result": ("update steps set output = '{\"n\": 7}'", "step = 1", "what was written as rev"),
    "an error": ("update steps set error = '{}'", "step = 1", "what was written as rev"),
    "its usage": ("update steps set usage = '{\"input_tokens\": 1}'", "kind = 'llm'", "as rev"),
    "its cost": ("update steps set cost_micro = 1", "kind = 'llm'", "what was written as rev"),
    "its task": ("update steps set task = 'ask'", "step = 1", "what was written as rev"),
    "white space": ("update steps set output = '{\"n\" : 1}'", "step = 1", "what was written as rev"),
    "a line": ("update history set data = '{}'", "seq = 3", "what was written as rev"),
    "its name": ("update history set name = 'run.started'", "seq = 1", "what was written as rev"),
    "its hash": (
        "update history set hash = '\\x00112233445566778899aabbccddeeff'",
        "seq = 2",
        "what was written as rev",
    ),
    "its link": ("update history set link = '\\x00'", "seq = 2", "what was written as rev"),
    "its time": ("update history set at = at - interval '1 hour'", "seq = 2", "older than its run"),
    "its time, later": ("update history set at = at + interval '1 hour'", "seq = 2", "after it was sealed"),
    "an amount": (
        "update ledger set amount_micro = amount_micro + 1",
        "entry = 'settle'",
        "what was written as rev",
    ),
    "a price": ("update ledger set price = 'other'", "entry = 'hold'", "what was written as rev"),
    "what was asked for": ("update runs set input = '{\"x\": 1}'", "true", "what was asked for"),
    "whose it is": ("update runs set workflow = 'waiting'", "true", "what was asked for"),
    "what came of it": ("update runs set output = '{}'", "true", "how it has ended"),
    "how it ended": ("update runs set status = 'failed'", "true", "how it has ended"),
    "what it spent": ("update runs set spent_micro = spent_micro + 1", "true", "its ledger"),
    "how far it is": ("update runs set seq = seq - 1", "true", "it has decided"),
    "its chain": ("update runs set chain = null", "true", "its chain was deleted"),
    "half of its chain": (f"update runs set chain = {PATCHED.format('0000', 35)}", "true", "the run's chain"),
    "the key's name": (
        f"update runs set chain = {PATCHED.format('00000000', 1)}",
        "true",
        "AGENTFLOW_AUDIT_KEY",
    ),
}


@pytest.mark.parametrize("what", EDITS)
async def test_an_edit_is_found(books: Books, what: str) -> None:
    statement, where, said = EDITS[what]
    await books.tamper(f"{statement} where run_id = %(run)s and {where}")
    findings = await books.findings()
    assert findings and all(finding.startswith(f"run {books.ended}: ") for finding in findings), findings
    assert said in findings[0]


GONE = {
    "a step": ("delete from steps where run_id = %(run)s and step = 2", "deleted"),
    "a line": ("delete from history where run_id = %(run)s and seq = 2", "deleted"),
    "an entry": ("delete from ledger where run_id = %(run)s and entry = 'settle'", "deleted"),
    "the last line": (
        "delete from history where run_id = %(run)s and seq = (select max(seq) from history where run_id = %(run)s)",
        "deleted",
    ),
    "the run": ("delete from runs where run_id = %(run)s", "is not there"),
}


@pytest.mark.parametrize("what", GONE)
async def test_a_deletion_is_found(books: Books, what: str) -> None:
    statement, said = GONE[what]
    await books.tamper(statement)
    (finding,) = await books.findings()
    assert finding.startswith(f"run {books.ended}: ") and said in finding


async def test_another_order_is_found(books: Books) -> None:
    """Two lines change places, with all that says so: rev, link, seq."""
    await books.tamper(
        """with two as (select seq, rev, link, at from history where run_id = %(run)s and seq in (2, 3))
           update history h set seq = -t.seq, rev = t.rev, link = t.link, at = t.at
           from two t where h.run_id = %(run)s and h.seq in (2, 3) and t.seq <> h.seq""",
        "update history set seq = -seq where run_id = %(run)s and seq < 0",
    )
    (finding,) = await books.findings()
    assert "put in another order" in finding


async def test_what_is_added_is_found(books: Books) -> None:
    await books.tamper(
        """insert into ledger (tenant_id, born, run_id, step, attempt, entry, amount_micro, held_micro, price, rev)
           select tenant_id, born, run_id, 99, 1, entry, 0, 0, price, rev from ledger
           where run_id = %(run)s and entry = 'hold' limit 1"""
    )
    (finding,) = await books.findings()
    assert "was written as rev" in finding
    await books.tamper("update ledger set rev = null where step = 99")
    (finding,) = await books.findings()
    assert "was added" in finding


CUT = (
    "delete from history where run_id = %(open)s and rev > %(rev)s",
    "delete from steps where run_id = %(open)s and rev > %(rev)s",
    "update runs set seq = seq - 1, rev = %(rev)s where run_id = %(open)s",
)


async def test_a_cut_off_end_is_found(books: Books) -> None:
    """The last line of a run that goes on is gone, and the run says that it never was."""
    (last,) = await books.house.rows(
        "select rev, link from history where run_id = %s order by seq desc limit 1 offset 1", books.open
    )
    await books.tamper(*CUT, rev=last["rev"])
    (finding,) = await books.findings()
    assert "the run's chain was" in finding
    # The end of the chain as the line before shows it: the secret half is missing.
    await books.tamper(
        """update runs set chain = substr(chain, 1, 4) || %(link)s || substr(chain, 21)
           where run_id = %(open)s""",
        rev=last["rev"], link=last["link"],
    )  # fmt: skip
    (finding,) = await books.findings()
    assert "was changed" in finding


async def test_a_run_that_is_set_back_to_what_it_once_was_is_found(books: Books) -> None:
    """Somebody has kept a copy of a run from before it went on, and puts it back with all its rows."""
    house = books.house
    tables = ("steps", "history", "ledger", "runs")
    copied = [f"create table public.old_{t} as select * from {t} where run_id = %(open)s" for t in tables]
    async with house.host(relay=False) as host:
        async with await psycopg.AsyncConnection.connect(house.database.admin) as conn:
            await conn.execute("set search_path = agentflow")
            for statement in copied:
                await conn.execute(statement.replace("%(open)s", f"'{books.open}'"))  # type: ignore[arg-type]
        cancelled = Message(
            "run.cancel_requested",
            house.tenant,
            books.open,
            "cancel:x",
            {"run": str(books.open), "reason": "x"},
        )
        await host.submit(cancelled)
        await house.ended(books.open)
    await books.seal()
    assert await books.findings() == []
    for table in tables:
        await books.tamper(f"delete from {table} where run_id = %(open)s") if table != "ledger" else None
        async with await psycopg.AsyncConnection.connect(house.database.admin) as conn:
            await conn.execute(f"insert into agentflow.{table} select * from public.old_{table}")
    (finding,) = await books.findings()
    assert finding.startswith(f"run {books.open}: ") and "set back" in finding


async def test_a_rewrite_without_the_key_is_found(books: Books) -> None:
    """Somebody who knows how chains are made follows all of a run anew, with a key of their own."""
    from agentflow.store import chain as links

    house, wrong = books.house, ChainKeys("not the key but as long as one")
    (run,) = await house.rows("select *, input::text as given from runs where run_id = %s", books.ended)
    who = (house.tenant, run["run_id"], int(run["created_at"].timestamp() * 1000), run["workflow"])
    made = wrong.begin(links.run_content(*who, run["given"].encode(), run["request_hash"]))
    whole = bytes(run["chain"])
    forged = "update runs set chain = %(chain)s where run_id = %(run)s"
    await books.tamper(forged, chain=whole[:4] + made[4:])
    (finding,) = await books.findings()
    assert "the run's chain" in finding
    # Named by its right name, the key is not among ours.
    await books.tamper(forged, chain=made)
    (finding,) = await books.findings()
    assert "AGENTFLOW_AUDIT_KEY" in finding


CHAIN = {
    "an entry changed": ("update audit set kind = 'x' where n = 2", "entry 2"),
    "its data changed": ("update audit set data = replace(data, '\"', '\" ') where n = 2", "data of entry 2"),
    "its time changed": ("update audit set at = at - interval '1 s' where n = 2", "entry 2"),
    "its data deleted": ("update audit set data = null where kind = 'runs'", "data of entry"),
    "an entry deleted": ("delete from audit where n = 1", "entry 1 is missing"),
    "its end cut off": ("delete from audit where n = (select max(n) from audit)", "the chain ends with"),
    "all of it deleted": ("delete from audit", "the chain ends with entry 0"),
    "its head deleted": ("delete from audit_heads", "the chain's head was deleted"),
    "its head set back": (
        "update audit_heads set n = 1",
        "its head is of entry 1",
    ),
    "a workflow changed": (
        "update workflows set document = replace(document::text, '\"add\"', '\"sub\"')::json where name = 'counted'",
        "workflow counted@1",
    ),
    "a workflow and its hash": (
        "update workflows set hash = 'x' where name = 'waiting'",
        "workflow waiting@1",
    ),
}


@pytest.mark.parametrize("what", CHAIN)
async def test_tampering_with_the_tenants_chain_is_found(books: Books, what: str) -> None:
    statement, said = CHAIN[what]
    quietly = ["alter table workflows disable trigger user"] if "workflow" in what else []
    await books.tamper(*quietly, statement)
    findings = await books.findings()
    assert findings and said in findings[0], findings


async def test_a_chain_cut_back_with_its_head_is_found_by_who_knows_more(books: Books) -> None:
    """An older copy of a whole database is in order. Only somebody elsewhere can tell that it is old."""
    house = books.house
    await books.tamper(
        "create table public.old_audit as select * from audit",
        "create table public.old_heads as select * from audit_heads",
    )
    await issue_key(house.database.admin, house.tenant, "pepper")
    (newer,) = await books.seal()
    known = [books.head, Head(newer.number, newer.link.upper())]
    assert (await books.verify(known=known)).findings == []
    await books.tamper(
        "delete from audit", "delete from audit_heads", "insert into audit select * from public.old_audit",
        "insert into audit_heads select * from public.old_heads",
    )  # fmt: skip
    assert await books.findings() == []
    (finding,) = (await books.verify(known=known)).findings
    assert f"entry {newer.number} is known elsewhere" in finding
    assert (await books.verify(known=[Head(1, "0" * 32)])).findings == [
        "audit: entry 1 is another one than the one known elsewhere"
    ]


async def test_what_operators_do_is_sealed_with_their_names(books: Books) -> None:
    house = books.house
    key = await issue_key(house.database.admin, house.tenant, "pepper", label="for ci")
    await revoke_key(house.database.admin, house.tenant, key.id)
    await books.seal()
    kinds = await house.rows(
        "select kind, data::json as data from audit where kind like 'api_keys%%' order by n"
    )
    assert [row["kind"] for row in kinds] == ["api_keys.insert", "api_keys.update"]
    assert kinds[0]["data"]["by"] == "postgres"
    assert kinds[0]["data"]["row"] == {
        "tenant_id": str(house.tenant), "key_id": key.id, "label": "for ci", "revoked_at": None, "admin": False,
    }  # fmt: skip
    assert str(key) not in str(kinds)
    assert await books.findings() == []


async def test_what_is_not_sealed_yet_is_no_finding_and_is_counted(books: Books) -> None:
    house = books.house
    async with house.host(relay=False) as host:
        fresh = await house.submit(host, "counted")
        await house.ended(fresh)
    waits = await books.verify()
    assert waits.findings == [] and waits.pending >= 1
    await books.seal()
    sealed = await books.verify()
    assert sealed.findings == [] and sealed.pending == 0
    assert sealed.runs == 4


async def test_a_former_key_goes_on_being_used_for_what_began_with_it(books: Books) -> None:
    house, former = books.house, books.house.settings.audit_key
    both = f"another key that is long enough,{former}"
    async with house.host(relay=False, audit_key=both) as host:
        after = await house.submit(host, "counted")
        await house.ended(after)
        cancel = Message(
            "run.cancel_requested", house.tenant, books.open, "c", {"run": str(books.open), "reason": "x"}
        )
        await host.submit(cancel)
        await house.ended(books.open)
    books.keys = ChainKeys(both)
    await books.seal()
    done = await books.verify()
    assert done.findings == [] and done.runs == 4
    books.keys = ChainKeys(former)
    (finding,) = await books.findings()
    assert str(after) in finding and "AGENTFLOW_AUDIT_KEY" in finding


async def test_runs_older_than_the_chain_are_counted_and_said_nothing_about(books: Books) -> None:
    await books.tamper(
        """insert into runs (tenant_id, run_id, workflow, status, created_at)
           values (%(tenant)s, gen_random_uuid(), 'old', 'requested', now() - interval '1 day')"""
    )
    done = await books.verify()
    assert done.findings == [] and done.uncovered == 1
    await books.tamper("update runs set created_at = now() where workflow = 'old'")
    (finding,) = await books.findings()
    assert "it has no chain" in finding


async def test_runs_that_were_removed_are_told_from_runs_that_were_deleted(books: Books) -> None:
    from agentflow.store.retention import FIRST_RUN, keeping

    house = books.house
    async with keeping(house.database.dsn("agentflow_keeper")) as store:
        now, _ = await store.lead()
        before = now + timedelta(seconds=1)
        old, _ = await store.old_runs(house.tenant, before, FIRST_RUN)
        gone = await store.remove_runs(house.tenant, before, old)
        assert gone == {books.ended, books.other}
        assert await books.findings() == []  # the note is there
        await books.seal()
        assert await books.findings() == []
        # The first entry names a run that still waits.
        assert await store.empty_audit(house.tenant, before) == 0
        await books.tamper("delete from runs where run_id = %(open)s")
        assert [str(books.open) in finding for finding in await books.findings()] == [True]
        # With the removal of the last one explained, nothing is left of any.
        await books.tamper(
            """insert into unsealed (tenant_id, kind, data)
               values (%(tenant)s, 'runs.removed', json_build_object('runs', json_build_array(%(open)s::text)))"""
        )
        await books.seal()
        later = (await store.lead())[0] + timedelta(seconds=1)
        assert await store.empty_audit(house.tenant, later) == 3
    assert await books.findings() == []
    await books.seal()
    assert await books.findings() == []
    (left,) = await house.rows("select count(*) as n from audit where data is null")
    assert left["n"] == 3


async def test_two_who_seal_at_once_keep_one_order(books: Books) -> None:
    import asyncio

    house = books.house
    for label in range(20):
        await issue_key(house.database.admin, house.tenant, "pepper", label=str(label))
    await asyncio.gather(*(books.seal() for _ in range(6)))
    await books.seal()
    labels = await house.rows(
        "select data::json -> 'row' ->> 'label' as label from audit where kind = 'api_keys.insert' order by n"
    )
    assert [row["label"] for row in labels] == [str(label) for label in range(20)]
    assert await books.findings() == []


@pytest.mark.parametrize("text", ["", "short", "x" * 65, "long enough to be one,"])
def test_a_key_of_another_length_is_refused(text: str) -> None:
    from agentflow.errors import Rejected

    with pytest.raises(Rejected) as refused:
        ChainKeys(text)
    assert refused.value.problem.path == "AGENTFLOW_AUDIT_KEY"


async def test_a_host_with_the_relay_seals_what_itself_and_others_do(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow.runtime.sealer.SOON_S", 0.05)
    await house.register(PRICED)
    (house.settings.script_dir / "any.model.yaml").write_text("rules: [{prompt: say, reply: {text: done}}]\n")

    async def sealed(run: UUID) -> bool:
        rows = await house.rows("select data from audit where kind = 'runs' and data like %s", f"%{run}%")
        return bool(rows) and not await house.rows("select 1 from unsealed")

    async with house.host(), house.host(relay=False) as other:  # is heard of by its hints
        run = await house.submit(other, "counted")
        await house.ended(run)
        await eventually(lambda: sealed(run), within_s=10)
    keys = ChainKeys(house.settings.audit_key)
    assert (await verify(house.database.dsn("agentflow_engine"), keys, house.tenant)).findings == []
