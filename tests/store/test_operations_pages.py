"""What infra/operations says can be typed in: its queries run on the schema as it is, its commands exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agentflow.config import Settings

FOLDER = Path(__file__).parents[2] / "infra" / "operations"
PAGES = sorted(FOLDER.glob("*.md"))


def queries(text: str) -> list[str]:
    """Blocks of SQL, and queries in the middle of a line."""
    blocks = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    return blocks + re.findall(r"`(select [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_all_pages_are_looked_at() -> None:
    names = {page.stem for page in PAGES}
    assert names == {"backup", "capacity", "retention", "runbooks"}
    assert sum(len(queries(page.read_text())) for page in PAGES) > 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_every_query_runs(page: Path, module_database: Any) -> None:
    with psycopg.connect(module_database.admin, autocommit=True) as conn:
        for query in queries(page.read_text()):
            conn.execute(query.encode())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_every_command_and_setting_exists(page: Path) -> None:
    from typer.main import get_command

    from agentflow.cli import app

    text = page.read_text()
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    named = set(re.findall(r"(?:^ *|`)agentflow ([a-z]+)", text, re.MULTILINE))
    assert named - commands == set()
    settings = {f"AGENTFLOW_{field.name.upper()}" for field in fields(Settings)}
    told_to_tools = {"AGENTFLOW_IDEMPOTENCY_KEY", "AGENTFLOW_WORK", "AGENTFLOW_FACTS", "AGENTFLOW_IN"}
    assert set(re.findall(r"AGENTFLOW_[A-Z_]+", text)) - settings - told_to_tools == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_connections_are_counted_as_they_are_made() -> None:
    """The page's figures are the pools' sizes."""
    import inspect

    from agentflow.store.control import ControlStore
    from agentflow.store.postgres import PostgresStore

    engine = inspect.signature(PostgresStore).parameters["connections"].default
    api = inspect.signature(ControlStore).parameters["connections"].default
    text = (FOLDER / "capacity.md").read_text()
    assert f"| a function | 1 | {engine} |" in text
    assert f"| api | 2 | {engine + api} ({engine} of the engine's, {api} of its own) |" in text
