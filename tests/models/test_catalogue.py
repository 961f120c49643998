"""Aliases, providers and prices."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentflow.config import Settings
from agentflow.core.price import Price, Tier, told_price
from agentflow.errors import Invalid, Rejected
from agentflow.models import Request
from agentflow.models.catalogue import ModelCatalogue
from agentflow.models.openai import OpenAIModel

from .chat_server import chat_server


def catalogue(models: Any = "", **settings: Any) -> ModelCatalogue:
    text = models if isinstance(models, str) else json.dumps(models)
    return ModelCatalogue.from_settings(Settings(models=text, **settings))


def test_without_settings_every_alias_is_the_scripted_model_at_a_stated_price() -> None:
    found = catalogue()
    assert found.resolve("small") == Price("scripted", "small", 250_000, 2_000_000, "scripted-1")
    assert found.resolve("large").model == "large"


def test_a_model_in_the_settings_serves_every_alias_at_the_price_the_list_knows() -> None:
    ref = catalogue(model="gpt-5-mini").resolve("small")
    assert (ref.provider, ref.model) == ("openai", "gpt-5-mini")
    assert (ref.input_micro_per_mtok, ref.output_micro_per_mtok) == (250_000, 2_000_000)
    assert ref.cache_read_micro_per_mtok == 25_000
    assert ref.price_version.startswith("genai-prices ")


def test_tiers_are_those_of_the_list() -> None:
    url = "https://generativelanguage.googleapis.com/v1beta/openai"
    found = catalogue(model="gemini-2.5-pro", llm_base_url=url, prices_at="2026-11-01").resolve("small")
    assert (found.input_micro_per_mtok, found.output_micro_per_mtok) == (1_250_000, 10_000_000)
    assert found.tiers is not None
    assert [(tier.above, tier.input, tier.output) for tier in found.tiers] == [(200_000, 2_500_000, 15_000_000)]
    assert found.price_version.endswith("@2026-11-01")


def test_what_a_tenant_was_told_goes_before_the_table_and_the_list() -> None:
    found = catalogue({"models": {"small": {"model": "gpt-5-mini", "bytes_per_token": 4}}})
    card = {"input_micro_per_mtok": 7, "output_micro_per_mtok": 8, "tiers": [{"above": 9, "input": 10, "output": 11}]}
    by_alias = found.resolve("small", {"small": told_price(card, 3)}.get)
    assert by_alias == Price(
        "openai", "gpt-5-mini", 7, 8, "tenant 3", tiers=(Tier(9, 10, 11),), bytes_per_100_tokens=320
    )
    by_model = found.resolve("small", {"gpt-5-mini": told_price(card, 4)}.get)
    assert by_model.price_version == "tenant 4"
    assert found.resolve("small", {}.get).price_version.startswith("genai-prices ")
    assert found.resolve("small").bytes_per_100_tokens == 320


def test_a_price_that_a_tenant_was_told_makes_a_model_known() -> None:
    found = catalogue(model="no-such-model-9")
    free = told_price({"input_micro_per_mtok": 0, "output_micro_per_mtok": 0}, 1)
    assert found.resolve("small", {"small": free}.get).model == "no-such-model-9"


def test_a_context_window_is_told_by_the_list_or_the_table() -> None:
    table = {"providers": {"local": {"base_url": "http://127.0.0.1:1/v1"}},
             "models": {"big": {"model": "gpt-5-mini"}, "own": {"provider": "local", "model": "q"},
                        "said": {"provider": "local", "model": "q", "context_tokens": 8192}}}  # fmt: skip
    found = catalogue(table)
    assert [found.window(alias) for alias in ("big", "own", "said")] == [400_000, None, 8192]


def test_a_table_states_all_parts_of_a_card() -> None:
    card = {
        "input_usd_per_mtok": 1.25, "output_usd_per_mtok": 10, "cache_read_usd_per_mtok": "0.125",
        "cache_write_usd_per_mtok": 1.5625, "usd_per_call": 0.005, "usd_per_second": 0.000000000001,
        "tiers": [
            {"above": 200_000, "input_usd_per_mtok": 2.5, "output_usd_per_mtok": 15, "cache_read_usd_per_mtok": 1}
        ],
    }  # fmt: skip
    found = catalogue({"models": {"small": {"model": "m", "provider": "scripted", **card}}}).resolve("small")
    tiers = (Tier(200_000, 2_500_000, 15_000_000, 1_000_000, None),)
    assert found == Price(
        "scripted", "m", 1_250_000, 10_000_000, "settings", 125_000, 1_562_500, 5_000, 1, tiers
    )


def test_a_model_of_ones_own_may_cost_by_the_second_alone() -> None:
    found = catalogue({"models": {"small": {"model": "m", "provider": "scripted", "usd_per_second": 0.0006}}})
    assert found.resolve("small").micro_per_million_seconds == 600_000_000
    assert found.resolve("small").input_micro_per_mtok == 0


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
  small: {provider: local, model: llama3.2, input_usd_per_mtok: 0, output_usd_per_mtok: 0.000002}
  large: {model: gpt-5-mini}
  fake: {provider: scripted, model: any}
"""
    )
    found = catalogue(str(table))
    assert found.resolve("small") == Price("local", "llama3.2", 0, 2, "settings")
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
        ({"models": {"small": {"model": "x", "output_usd_per_mtok": 1e9}}}, "with at most 6 decimals"),
        ({"models": {"small": {"model": "x", "tokenizer": "t.json", "bytes_per_token": 3}}}, "not both"),
        ({"models": {"small": {"model": "x", "bytes_per_token": 0.5}}}, "models.small.bytes_per_token"),
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


@pytest.mark.parametrize("day", ["yesterday", "2026-13-01", "2026"])
def test_a_day_of_prices_that_is_none_is_named(day: str) -> None:
    with pytest.raises(Invalid, match="AGENTFLOW_PRICES_AT: is not a date") as caught:
        catalogue(prices_at=day)
    assert "2026-11-01" in caught.value.problems[0].mend


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
