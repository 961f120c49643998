"""The workflows in local/workflows: what they say about a log is what the log says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from house import House

from agentflow.wire.claim import blob_ref
from agentflow.wire.document import compile_document, load_document_file

FOLDER = Path(__file__).parents[2] / "local" / "workflows"
LOG = FOLDER / "incident-triage" / "checkout-service.log"
STEPS = "select task, status, output, cost_micro from steps order by step"
CALM = [
    "2027-03-01T08:00:00.100Z INFO http request=a1 POST /checkout status=200 ms=20",
    "2027-03-01T08:00:01.100Z WARNING inventory request=a2 out of stock kind=OutOfStock",
    "2027-03-01T08:00:01.101Z INFO http request=a2 POST /checkout status=409 ms=4",
]


async def triage(
    house: House, content: bytes, rules: Path = FOLDER
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The ended run of incident-triage on a log, and its steps."""
    await house.register(load_document_file(FOLDER / "incident-triage.yaml"))
    query = "insert into blobs (tenant_id, ref, content) values (%s, %s, %s) returning ref"
    (blob,) = await house.rows(query, house.tenant, blob_ref(content), content)
    async with house.host(script_dir=rules) as host:
        row = await house.ended(await house.submit(host, "incident-triage", {"log": blob["ref"]}))
    return row, await house.rows(STEPS)


def tasks(steps: list[dict[str, Any]]) -> list[str]:
    return [step["task"] for step in steps]


def test_the_log_is_large_and_names_nobody() -> None:
    text = LOG.read_text()
    assert 3_000 <= text.count("\n") <= 6_000
    assert len(text) < 600 * 1024
    assert set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text)) == {"127.0.0.1"}


@pytest.mark.parametrize("name", ["incident-triage", "hello", "research"])
def test_a_sample_is_valid_and_fits_its_budget(name: str) -> None:
    plan = compile_document(load_document_file(FOLDER / f"{name}.yaml"))
    assert plan.name == name
    assert 0 < plan.limits.micro <= 50_000


async def test_an_incident_is_found_where_the_log_has_it(house: House) -> None:
    row, steps = await triage(house, LOG.read_bytes())
    lines = LOG.read_text().splitlines()
    answers = [line for line in lines if " status=" in line]
    broken = [line for line in answers if " status=503 " in line]
    first = broken[0].split("request=")[1].split()[0]
    trail = [line for line in lines if f"request={first} " in line and " INFO " not in line]

    assert (row["status"], row["steps"]) == ("succeeded", 5)
    assert tasks(steps)[:2] == ["parse", "classify"]
    assert set(tasks(steps)[2:4]) == {"find_cause", "measure_impact"}
    assert tasks(steps)[4] == "summarise"
    facts = steps[0]["output"]
    assert facts["lines"] == len(lines)
    assert facts["unreadable_lines"] == sum(not line.startswith("20") for line in lines)
    assert facts["levels"] == {name: sum(f" {name} " in line for line in lines) for name in facts["levels"]}
    assert sum(facts["errors_over_time"]["counts"]) == sum(" ERROR " in line for line in lines)
    said = row["output"]
    assert said["severity"] == "critical"
    assert said["category"] == "pool/PoolTimeout"
    assert said["cause"]["component"] == trail[0].split()[2] == "payments"
    assert said["cause"]["since"] == next(line for line in lines if "SlowAnswer" in line).split()[0]
    assert said["cause"]["evidence"] == trail
    assert said["impact"]["requests"] == len(answers)
    assert said["impact"]["failed"] == len(broken) == said["cause"]["failed"]
    assert said["impact"]["percent"] == pytest.approx(100 * len(broken) / len(answers), abs=0.06)
    assert said["impact"]["during"]["from"] == broken[0].split()[0]
    assert said["impact"]["during"]["to"] == broken[-1].split()[0]
    assert f"{len(broken)} of {len(answers)} requests failed" in said["summary"]

    settled = await house.rows("select sum(amount_micro)::int as micro from ledger where entry = 'settle'")
    assert row["spent_micro"] == settled[0]["micro"] == sum(step["cost_micro"] for step in steps) > 0
    assert (row["finished_at"] - row["created_at"]).total_seconds() < 10


async def test_a_calm_log_is_not_looked_into_further(house: House) -> None:
    row, steps = await triage(house, "\n".join(CALM).encode())
    assert tasks(steps) == ["parse", "classify", "summarise"]
    said = row["output"]
    assert (said["severity"], said["category"], said["cause"], said["impact"]) == ("low", "none", None, None)
    assert "0.0% failed (0 of 2 requests)" in said["summary"]


async def test_a_few_failures_among_garbage_are_an_incident(house: House) -> None:
    """A seventh of the requests fails, and the log holds what logs hold: binary, half lines, impossible times."""
    at = "2027-03-01T08:00:0"
    bad = [
        f"{at}5.000Z WARNING cache request=b1 stale kind=Stale",
        f"{at}6.000Z ERROR db request=b1 lost kind=Gone",
        f"{at}6.001Z ERROR http request=b1 GET /a status=500 ms=7",
    ]
    garbage = (
        b"\xff\xfe\x00\n\n2027-99-99T99:99:99.000Z ERROR db kind=Never\nTraceback (most recent call last):\n"
    )
    calm = "\n".join([*CALM * 3, *bad]).encode()
    row, steps = await triage(house, garbage + calm + b"\n" + b"x" * 100_000)
    facts = steps[0]["output"]
    assert (facts["requests"], facts["failed_requests"], facts["unreadable_lines"]) == (7, 1, 5)
    said = row["output"]
    assert (said["severity"], said["category"]) == ("high", "db/Gone")
    assert (said["cause"]["component"], said["cause"]["evidence"]) == ("cache", bad)
    assert (said["impact"]["failed"], said["impact"]["percent"]) == (1, 14.3)


async def test_what_is_no_log_ends_the_run_with_the_reason(house: House) -> None:
    row, _ = await triage(house, b"Dear diary,\ntoday nothing happened.\n")
    assert row["status"] == "failed"
    assert "none of the 2 lines reads: TIME LEVEL COMPONENT text" in row["error"]["message"]
    assert row["error"]["path"] == "states.unreadable"
    assert row["spent_micro"] == 0


async def test_without_a_model_the_log_is_looked_into_all_the_same(house: House, tmp_path: Path) -> None:
    row, _ = await triage(house, LOG.read_bytes(), tmp_path)  # no rules there: every call is refused
    assert row["status"] == "succeeded"
    assert (row["output"]["severity"], row["output"]["cause"]["component"]) == ("unknown", "payments")
    assert row["output"]["summary"].startswith("no rule of the scripted model answers")
    assert row["output"]["summary"].endswith("(no summary: no_scripted_reply)")


async def test_hello_greets(house: House) -> None:
    text = (FOLDER / "hello.yaml").read_text()
    assert len(text.splitlines()) <= 12
    await house.register(load_document_file(FOLDER / "hello.yaml"))
    async with house.host(script_dir=FOLDER) as host:
        row = await house.ended(await house.submit(host, "hello", {"name": "Ada L."}))
    assert row["status"] == "succeeded"
    assert row["output"]["letters"] == 4
    assert "Ada L." in row["output"]["greeting"]
    assert row["spent_micro"] > 0


@pytest.mark.parametrize(
    ("item", "verdict", "total", "failed"),
    [("lamp", "12 are there for the 2 that are asked for", 24.5, 0), ("moon", "moon is not sold", 0.0, 1)],
)
async def test_research_asks_its_tools_and_answers_by_what_they_say(
    house: House, item: str, verdict: str, total: float, failed: int
) -> None:
    await house.register(load_document_file(FOLDER / "research.yaml"))
    async with house.host(script_dir=FOLDER) as host:
        row = await house.ended(await house.submit(host, "research", {"product": item, "count": 2}))
    assert (row["status"], row["output"]) == ("succeeded", {"verdict": verdict, "total": total})
    steps = await house.rows(STEPS)
    assert tasks(steps) == ["research", "research--turn", "research--stock", "research--price", "research--turn"]
    assert sum(step["status"] == "failed" for step in steps) == failed
    assert 0 < row["spent_micro"] < 1_000
