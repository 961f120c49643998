"""compose.yaml as a file: who is told of models, and of what is Amazon's. tests/deploy runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

LOCAL = Path(__file__).parents[2] / "local"
SERVICES: dict[str, Any] = yaml.safe_load((LOCAL / "compose.yaml").read_text())["services"]
FUNCTIONS = ("plan", "dispatch", "account_cost", "invoke_llm", "run_tool", "relay", "api")
ASKS_MODELS = ("plan", "dispatch", "invoke_llm", "api")  # dispatch for an alias's tokenizer, which bounds its holds


@pytest.mark.parametrize("name", ASKS_MODELS)
def test_a_table_of_models_and_its_files_are_where_they_are_looked_for(name: str) -> None:
    assert "AGENTFLOW_MODELS" in SERVICES[name]["environment"]
    assert "./models:/etc/agentflow/models:ro" in SERVICES[name]["volumes"]
    assert "MODELS=/etc/agentflow/models/" in (LOCAL / "README.md").read_text()
    assert (LOCAL / "models").is_dir()


@pytest.mark.parametrize("name", [*FUNCTIONS, "init"])
def test_any_setting_may_be_a_secret_of_amazon_or_of_moto(name: str) -> None:
    """A setting is resolved by the function that reads it, so each has to find the way."""
    environment = SERVICES[name]["environment"]
    names = {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}
    assert names <= environment.keys()
    assert "moto-init" in SERVICES[name]["depends_on"]


def test_every_setting_of_the_example_is_one_that_compose_takes() -> None:
    text = "".join(path.read_text() for path in (LOCAL / "compose.yaml", LOCAL / "sandbox.sh"))
    named = [line.partition("=")[0] for line in (LOCAL / ".env.example").read_text().splitlines() if line[:1].isupper()]
    assert "NATS_SERVERS" in named
    assert [name for name in named if f"${{{name}:" not in text] == []
