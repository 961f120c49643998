"""The documents say what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from agentflow.wire.document import check_document, compile_document
from agentflow.wire.document_shape import (
    Agent,
    AgentTask,
    Document,
    NodeShape,
    State,
    Subtree,
    Tool,
    Transition,
)

ROOT = Path(__file__).parents[1]
NODES = NodeShape.__subclasses__()
PAGES = [ROOT / "README.md", ROOT / "functions" / "README.md"]


def test_the_workflow_in_the_readme_is_the_sample_and_has_twelve_lines() -> None:
    text = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"<!-- local/workflows/hello.yaml -->\n```yaml\n(.*?)```", text, re.DOTALL)
    assert shown == (ROOT / "local/workflows/hello.yaml").read_text()
    assert len(shown.splitlines()) == 12
    assert compile_document(shown.encode()).name == "hello"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert len(links) > 5
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_one_address_of_the_collector_is_told_and_it_is_the_one_that_spans_go_to() -> None:
    from agentflow.observe.otlp import JsonExporter

    texts = [(ROOT / "local" / name).read_text() for name in ("README.md", ".env.example")]
    told = {address for text in texts for address in re.findall(r"http://collector:\d+[\w/]*", text)}
    assert told == {"http://collector:4318"}
    assert JsonExporter(*told)._url == "http://collector:4318/v1/traces"


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {"run", "test", "dev"} <= set(named) <= targets


def test_every_command_in_the_readme_exists() -> None:
    from typer.main import get_command

    from agentflow.cli import app

    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    (row,) = re.findall(r"\| CLI \| `agentflow (.*?) \|", (ROOT / "README.md").read_text())
    named = {part.strip("` ").split()[0] for part in row.split(",")}
    assert named <= commands


def test_the_machine_in_the_plan_format_is_one() -> None:
    text = (ROOT / "schemas" / "plan.md").read_text()
    (shown,) = re.findall(r"```yaml\n(states:.*?)```", text, re.DOTALL)
    draft = {"kind": "llm", "use": "small", "prompt": "write"}
    document: dict[str, Any] = {
        "agentflow": "plan/v1", "kind": "fsm", "name": "example", "limits": {"steps": 9, "usd": 1},
        "vars": {"text": "string", "rounds": "int", "author": "string"},
        "initial": "working", "tasks": {"draft": draft},
    }  # fmt: skip
    document |= yaml.safe_load(shown)
    assert compile_document(document).machine is not None


def test_the_workflow_built_in_python_is_one() -> None:
    text = (ROOT / "schemas" / "plan.md").read_text()
    (shown,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    built: dict[str, Any] = {}
    exec(shown, built)
    assert built["flow"].check().name == "greeting"


def test_the_tree_in_the_plan_format_is_one() -> None:
    text = (ROOT / "schemas" / "plan.md").read_text()
    (shown,) = re.findall(r"```yaml\n(vars:.*?)```", text, re.DOTALL)
    task = {"kind": "tool", "use": "std.echo", "in": {"city": "city"}}
    document: dict[str, Any] = {
        "agentflow": "plan/v1", "kind": "bt", "name": "example", "limits": {"steps": 60},
        "tasks": {"reserve": task, "look": task, "release": task},
    }  # fmt: skip
    document |= yaml.safe_load(shown)
    assert compile_document(document).tree is not None


def test_the_agent_in_the_plan_format_is_one() -> None:
    text = (ROOT / "schemas" / "plan.md").read_text()
    (shown,) = re.findall(r"```yaml\n(tools:\n  search.*?)```", text, re.DOTALL)
    document: dict[str, Any] = {
        "agentflow": "plan/v1", "kind": "bt", "name": "example", "limits": {"steps": 99, "usd": 1},
        "input": {"order": "string"}, "root": "research",
    }  # fmt: skip
    document |= yaml.safe_load(shown)
    assert compile_document(document).tasks["research"].agent is not None


def test_the_tool_with_effects_in_the_plan_format_is_one() -> None:
    text = (ROOT / "schemas" / "plan.md").read_text()
    (shown,) = re.findall(r"```yaml\n(tools:\n  transfer.*?)```", text, re.DOTALL)
    document: dict[str, Any] = {
        "agentflow": "plan/v1", "kind": "bt", "name": "example", "limits": {"steps": 9},
        "input": {"order": "string", "amount": "double"}, "vars": {"paid": "string", "why": "string"},
    }  # fmt: skip
    document |= yaml.safe_load(shown)
    checked = check_document(document)
    assert checked.plan.tools["transfer"].once
    assert checked.warnings == ()


SHAPES = [Agent, AgentTask, Tool, Document, Subtree, State, Transition, *NODES]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_the_plan_format_names_every_key(shape: type[BaseModel]) -> None:
    text = (ROOT / "schemas" / "plan.md").read_text()
    words = set(re.findall(r"[a-z_]+", text))
    missing = {field.alias or name for name, field in shape.model_fields.items()} - words
    assert missing <= {"agentflow", "description", "children", "type", "for", "value"}
