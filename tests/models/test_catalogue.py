"""Aliases, providers and prices."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentflow.config import Settings
from agentflow.errors import Invalid, Rejected
from agentflow.models import ModelRef, Request
from agentflow.models.catalogue import ModelCatalogue
from agentflow.models.openai import OpenAIModel

from .chat_server import chat_server


def catalogue(models: Any = "", **settings: Any) -> ModelCatalogue:
    text = models if isinstance(models, str) else json.dumps(models)
    return ModelCatalogue.from_settings(Settings(models=text, **settings))


def test_without_settings_every_alias_is_the_scripted_model_at_a_stated_price() -> None:
    found = catalogue()
    assert found.resolve("small") == ModelRef("scripted", "small", 250_000, 2_000_000, "scripted-1")
    assert found.resolve("large").model == "large"


def test_a_model_in_the_settings_serves_every_alias_at_the_price_the_list_knows() -> None:
    ref = catalogue(model="gpt-5-mini").resolve("small")
    assert (ref.provider, ref.model) == ("openai", "gpt-5-mini")
    assert (ref.input_micro_per_mtok, ref.output_micro_per_mtok) == (250_000, 2_000_000)
    assert ref.price_version.startswith("genai-prices ")


def test_the_dearest_tier_counts() -> None:
    ref = catalogue(model="gemini-2.5-pro", llm_base_url="https://generativelanguage.googleapis.com/v1beta/openai")
    found = ref.resolve("small")
    assert (found.input_micro_per_mtok, found.output_micro_per_mtok) == (2_500_000, 15_000_000)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "no-such-model-9"},
        {"model": "gpt-5-mini", "llm_base_url": "http://127.0.0.1:11434/v1"},  # its namesake may cost otherwise
    ],
)
def test_a_model_of_unknown_price_is_not_called(settings: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="AGENTFLOW_MODELS") as caught:
        catalogue(**settings).resolve("small")
    assert caught.value.code == "unknown_price"


def test_the_alias_table_names_models_providers_and_prices(tmp_path: Path) -> None:
    table = tmp_path / "models.yaml"
    table.write_text(
        """
providers:
  local: {base_url: http://127.0.0.1:11434/v1}
models:
  small: {provider: local, model: llama3.2, input_usd_per_mtok: 0, output_usd_per_mtok: 0.0000015}
  large: {model: gpt-5-mini}
  fake: {provider: scripted, model: any}
"""
    )
    found = catalogue(str(table))
    assert found.resolve("small") == ModelRef("local", "llama3.2", 0, 2, "settings")
    assert found.resolve("large").provider == "openai"
    assert found.resolve("fake").provider == "scripted"
    with pytest.raises(Rejected, match="fake, large, small") as caught:
        found.resolve("medium")
    assert caught.value.code == "unknown_model"
    assert catalogue(str(table), model="gpt-5-mini").resolve("medium").model == "gpt-5-mini"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"models": {"small": {}}}, "AGENTFLOW_MODELS.models.small.model"),
        ({"models": {"small": {"model": "x", "provider": "nobody"}}}, "there is no provider 'nobody'"),
        ({"models": {"small": {"model": "x", "input_usd_per_mtok": 1}}}, "AGENTFLOW_MODELS.models.small"),
        ({"models": {"small": {"model": "x", "input_usd_per_mtok": -1}}}, "input_usd_per_mtok"),
        ({"models": {"Bad Name": {"model": "x"}}}, "AGENTFLOW_MODELS.models.Bad Name"),
        ({"providers": {"local": {}}}, "AGENTFLOW_MODELS.providers.local.base_url"),
        ({"providers": {"local": {"base_url": "ftp://x"}}}, "AGENTFLOW_MODELS.providers.local.base_url"),
        ({"small": "gpt-5-mini"}, "AGENTFLOW_MODELS.small"),
        ("{", "AGENTFLOW_MODELS"),
        ("no/such/file.yaml", "no/such/file.yaml: No such file"),
    ],
)
def test_a_fault_in_the_table_is_named_with_its_place(table: Any, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        catalogue(table)
    assert says in str(caught.value)


def test_a_server_without_a_model_is_half_a_setting() -> None:
    with pytest.raises(Invalid, match="AGENTFLOW_MODEL: is not set"):
        catalogue(llm_base_url="http://127.0.0.1:11434/v1")


@pytest.mark.parametrize("alias", ["", "Small", "a b", "x" * 65, "../x"])
def test_what_cannot_be_an_alias_is_no_model(alias: str) -> None:
    with pytest.raises(Rejected) as caught:
        catalogue().resolve(alias)
    assert caught.value.code == "unknown_model"


def test_there_is_no_client_for_a_provider_nobody_has_named() -> None:
    with pytest.raises(Rejected) as caught:
        catalogue().model("nobody")
    assert caught.value.code == "unknown_provider"


async def test_each_provider_has_one_client_with_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key-of-one\n")
    request = Request("one", "m", ({"role": "user", "content": "hi"},), 10, None, 10.0)
    with chat_server() as one, chat_server() as two:
        table = {
            "providers": {
                "one": {"base_url": one.url, "api_key_file": str(tmp_path / "key")},
                "two": {"base_url": two.url},
                "openai": {"base_url": two.url},
            }
        }
        found = catalogue(table, llm_api_key="key-of-openai")
        assert found.model("one") is found.model("one")
        for provider in ("one", "two", "openai"):
            await found.model(provider).complete(request)
        await found.close()
        assert [h["authorization"] for h in one.headers] == ["Bearer key-of-one"]
        # AGENTFLOW_LLM_API_KEY belongs to AGENTFLOW_LLM_BASE_URL, not to a server named in the table.
        assert [h["authorization"] for h in two.headers] == ["Bearer none", "Bearer none"]


def test_a_key_file_that_is_not_there_is_named() -> None:
    table = {"providers": {"one": {"base_url": "http://127.0.0.1:1/v1", "api_key_file": "no/such/key"}}}
    with pytest.raises(Rejected, match=r"providers\.one\.api_key_file"):
        catalogue(table).model("one")


def test_a_client_is_made_without_importing_the_sdk() -> None:
    before = "openai" in sys.modules
    assert isinstance(catalogue(model="gpt-5-mini").model("openai"), OpenAIModel)
    assert ("openai" in sys.modules) == before
