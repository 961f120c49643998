"""The three larger samples in local/workflows, each on the real stack with the scripted model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from house import House, all_decided_again, eventually

from agentflow.core.message import Message
from agentflow.runtime.host import Host
from agentflow.terminal.loading import compile_file
from agentflow.wire.claim import blob_ref
from agentflow.wire.document import load_document_file

FOLDER = Path(__file__).parents[2] / "local" / "workflows"


@pytest.fixture
async def house(house: House) -> AsyncIterator[House]:
    """After each test all runs are decided again, and come to the same."""
    yield house
    await all_decided_again(house)


async def ran(house: House, name: str, given: dict[str, Any], *answers: dict[str, Any]) -> dict[str, Any]:
    """The ended run of a sample; people answer what they are asked, in this order."""
    await house.register(load_document_file(FOLDER / f"{name}.yaml"))
    async with house.host(script_dir=FOLDER) as host:
        run = await house.submit(host, name, given)
        for output in answers:
            await answer(house, host, run, output)
        return await house.ended(run)


async def answer(house: House, host: Host, run: UUID, output: dict[str, Any]) -> None:
    (asked,) = await eventually(lambda: house.rows("select step from subscriptions"))
    data = {"run": str(run), "step": asked["step"], "output": output, "by": "a test"}
    await host.submit(Message("step.answered", house.tenant, run, f"answer:{asked['step']}", data))
    await eventually(lambda: _gone(house, asked["step"]))


async def _gone(house: House, step: int) -> bool:
    return await house.rows("select 1 from subscriptions where step = %s", step) == []


async def tasks(house: House) -> list[str]:
    return [row["task"] for row in await house.rows("select task from steps order by step")]


# ------------------------------------------------------------------------------------------------ support


ASKED = "The kettle arrived broken. I want my money back."
SHOUTED = "This is unacceptable. The third time it leaks! Refund me now, I am angry and want my money back."


@pytest.mark.parametrize(
    ("ticket", "amount", "answers", "expected"),
    [
        ("How do I clean the kettle?", 0.0, [], ("question", "no refund was asked for", "", ["classify", "answer"])),
        (ASKED, 20.0, [], ("refund", "refunded as R-42-2000", "R-42-2000", ["classify", "pay", "answer"])),
        (
            SHOUTED, 200.0, [{"ok": True, "why": ""}],
            ("refund", "refunded as R-42-20000", "R-42-20000", ["classify", "approve", "pay", "answer"]),
        ),
        (
            ASKED, 200.0, [{"ok": False, "why": "it was used for a year"}],
            ("refund", "no refund: it was used for a year", "", ["classify", "approve", "answer"]),
        ),
    ],
)  # fmt: skip
async def test_a_ticket_is_decided_and_answered(
    house: House, ticket: str, amount: float, answers: list[Any], expected: tuple[Any, ...]
) -> None:
    topic, decision, refund, steps = expected
    given = {"ticket": ticket, "order": "42", "amount": amount}
    row = await ran(house, "support-triage", given, *answers)
    assert row["status"] == "succeeded", row["error"]
    assert (row["output"]["topic"], row["output"]["decision"], row["output"]["refund"]) == (topic, decision, refund)
    assert row["output"]["reply"].endswith(f"{decision}.")
    assert await tasks(house) == steps


async def test_a_refund_that_nobody_can_be_told_of_is_taken_back(house: House, tmp_path: Path) -> None:
    rules = (FOLDER / "support-triage.model.yaml").read_text().split("  - prompt: '^What was decided")[0]
    (tmp_path / "silent.model.yaml").write_text(rules)
    await house.register(load_document_file(FOLDER / "support-triage.yaml"))
    async with house.host(script_dir=tmp_path) as host:
        given = {"ticket": ASKED, "order": "42", "amount": 20.0}
        row = await house.ended(await house.submit(host, "support-triage", given))
    assert row["error"]["message"] == "states.unanswered: no answer could be written for order 42"
    (step,) = await house.rows("select output from steps where task = 'take_back'")
    assert step["output"] == {"revoked": "R-42-2000"}


# ------------------------------------------------------------------------------------------------ content


BRIEF = {"topic": "compost", "audience": "beginners"}


async def test_an_article_is_reviewed_until_it_is_good_and_signed_off(house: House) -> None:
    row = await ran(house, "content-pipeline", BRIEF, {"ok": True})
    assert row["status"] == "succeeded", row["error"]
    said = row["output"]
    assert said["article"].startswith("What compost is. It matters more than one thinks. For example")
    assert (said["headline"], said["teaser"]) == ("What compost is, at last", "What compost is: more than one thinks.")
    assert (said["score"], said["link"].startswith("/articles/")) == (0.9, True)
    done = await tasks(house)
    assert done[:5] == ["outline", "write", "review", "write", "review"]
    assert done[7:] == ["publish", "sign_off"]


async def test_what_is_not_signed_off_is_withdrawn(house: House) -> None:
    row = await ran(house, "content-pipeline", BRIEF, {"ok": False})
    assert row["status"] == "failed"
    steps = await house.rows("select task, output from steps order by step")
    assert [step["task"] for step in steps][-2:] == ["take_back", "withdraw"]
    published = next(step["output"]["link"] for step in steps if step["task"] == "publish")
    assert steps[-1]["output"] == {"withdrawn": published}


# ------------------------------------------------------------------------------------------------ data


GOOD = "id,name,price\n1,kettle,20\n2,mug,5\n3,lid,2\n"
SHORT = "id,name,price\n1,kettle,20\n"
HOLLOW = "sku,colour,size\na,,1\nb,,2\nc,,3\n"


async def files(house: House, *contents: str) -> list[str]:
    refs = []
    for content in contents:
        query = "insert into blobs (tenant_id, ref, content) values (%s, %s, %s) on conflict do nothing returning ref"
        await house.rows(query, house.tenant, ref := blob_ref(content.encode()), content.encode())
        refs.append(ref)
    return refs


async def test_a_clean_export_needs_nobody(house: House) -> None:
    given = {"tables": await files(house, GOOD, GOOD + "4,pan,30\n"), "least_rows": 3}
    row = await ran(house, "nightly-data-check", given)
    assert row["output"] == {"verdict": "clean", "bad": [], "explanation": ""}
    assert await tasks(house) == ["check", "check"]


@pytest.mark.parametrize(("use", "verdict"), [(True, "used all the same"), (False, "held back")])
async def test_what_is_wrong_is_explained_and_decided_by_a_person(house: House, use: bool, verdict: str) -> None:
    tables = await files(house, GOOD, SHORT, HOLLOW, *[GOOD + f"{i},x,1\n" for i in range(4, 20)])
    row = await ran(house, "nightly-data-check", {"tables": tables, "least_rows": 3}, {"use": use})
    assert row["output"]["verdict"] == verdict
    assert sorted(row["output"]["bad"]) == [
        "id,name,price: 1 rows, 3 are expected", "sku,colour,size: column colour is mostly empty",
    ]  # fmt: skip
    assert row["output"]["explanation"].startswith("The export was probably cut short.")
    assert (await tasks(house)).count("check") == 19


async def test_the_export_itself_starts_the_check(house: House) -> None:
    await house.register(load_document_file(FOLDER / "nightly-data-check.yaml"))
    event = {
        "specversion": "1.0", "id": "1", "source": "/exports", "type": "com.example.export.finished",
        "data": {"tables": await files(house, GOOD), "least_rows": 3},
    }  # fmt: skip
    async with house.host(script_dir=FOLDER) as host:
        await host.submit(Message("event.received", house.tenant, house.tenant, "in:1", {"event": event}))
        runs = await eventually(lambda: house.rows("select run_id from runs"))
        row = await house.ended(runs[0]["run_id"])
    assert row["output"]["verdict"] == "clean"


# ------------------------------------------------------------------------------------------------ the other form


@pytest.mark.parametrize("name", ["support-triage", "content-pipeline", "nightly-data-check"])
def test_what_is_built_in_python_is_the_same_plan(name: str) -> None:
    written = compile_file(str(FOLDER / f"{name}.yaml")).document
    built = compile_file(str(FOLDER / f"{name.replace('-', '_')}.py")).document

    def plain(document: dict[str, Any]) -> str:
        bare = {key: value for key, value in document.items() if key != "description"}
        return json.dumps(bare, sort_keys=True).replace('\\"', "'")  # CEL has two kinds of quotes

    assert plain(built) == plain(written)
