"""Which model an alias stands for, at which price, and who answers for it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

from agentflow.config import Settings
from agentflow.core.price import Price, Told
from agentflow.errors import Invalid, Problem, Rejected
from agentflow.models.aliases import Alias, Aliases, Provider, read_aliases
from agentflow.models.model import Model, is_openai
from agentflow.models.prices import known_price, known_window
from agentflow.models.scripted import PRICE as SCRIPTED_PRICE
from agentflow.models.scripted import ScriptedModel

OPENAI_URL = "https://api.openai.com/v1"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class ModelCatalogue:
    """Aliases resolved once each, providers opened when first called.

    An alias is looked up in the alias table; else ``fallback`` serves it; without either, the scripted model.
    """

    def __init__(
        self,
        aliases: Aliases,
        *,
        fallback: str,
        script_dir: Path,
        base_url: str = "",
        api_key: str = "",
        prices_at: date | None = None,
    ) -> None:
        self._prices_at = prices_at
        self._aliases = aliases
        self._fallback = fallback
        self._script_dir = script_dir
        self._providers = dict(aliases.providers)
        ours = self._providers.get("openai", Provider())
        # A key goes to the server it was given for, and to no other.
        if not ours.base_url:
            ours = ours.model_copy(update={"base_url": base_url or OPENAI_URL})
            if not ours.api_key_file:
                ours = ours.model_copy(update={"api_key": ours.api_key or api_key})
        self._providers["openai"] = ours
        self._resolved: dict[str, Price] = {}
        self._resolved_on: date | None = None
        self._known_as = _names(aliases)
        self._models: dict[str, Model] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> ModelCatalogue:
        """``Invalid`` when the settings contradict themselves or the alias table is malformed."""
        aliases = read_aliases(settings.models)
        if settings.llm_base_url and not settings.model and not aliases.models:
            mend = "name the model the server is to use, e.g. AGENTFLOW_MODEL=llama3.2"
            message = "is not set, although AGENTFLOW_LLM_BASE_URL is"
            raise Invalid([Problem("AGENTFLOW_MODEL", message, mend, "bad_setting")])
        return cls(
            aliases,
            fallback=settings.model,
            script_dir=settings.script_dir,
            base_url=settings.llm_base_url,
            api_key=settings.llm_api_key,
            prices_at=_date(settings.prices_at),
        )

    def resolve(self, alias: str, told: Told | None = None) -> Price:
        """What ``alias`` stands for and costs: as the tenant was told, else as the alias table says, else by the public
        list of the day. ``Rejected``: unknown_model, or unknown_price, as nothing unpriced is called."""
        if told is not None:
            entry = self._entry(alias)
            price = told(alias) or told(entry.model)
            if price is not None:
                return price._replace(
                    provider=entry.provider, model=entry.model, bytes_per_100_tokens=_bytes_per_100(entry)
                )
        today = self._prices_at or datetime.now(UTC).date()
        if today != self._resolved_on:
            self._resolved_on = today
            self._resolved.clear()
        price = self._resolved.get(alias)
        if price is None:
            price = self._resolved[alias] = self._resolve(alias, today)
        return price

    def window(self, alias: str) -> int | None:
        """How many tokens the model of an alias is said to take at most; None: nobody says."""
        entry = self._entry(alias)
        if entry.context_tokens is not None or entry.provider == "scripted":
            return entry.context_tokens
        return known_window(entry.model, self._providers[entry.provider].base_url or OPENAI_URL)

    def aliases(self) -> list[str]:
        """The names in the alias table."""
        return sorted(self._aliases.models)

    def known_as(self, provider: str, model: str) -> frozenset[str]:
        """How else a model may be named by the server that answers."""
        return self._known_as.get((provider, model), frozenset())

    def model(self, provider: str) -> Model:
        """The provider's client, which connects with its first call. ``Rejected`` when there is no such provider."""
        model = self._models.get(provider)
        if model is None:
            model = self._models[provider] = self._open(provider)
        return model

    async def close(self) -> None:
        models, self._models = list(self._models.values()), {}
        for model in models:
            await model.close()

    def _entry(self, alias: str) -> Alias:
        entry = self._aliases.models.get(alias)
        if entry is None:
            if not _ALIAS.fullmatch(alias) or (self._aliases.models and not self._fallback):
                known = ", ".join(sorted(self._aliases.models)) or "a name like small"
                mend = f"use {known}, or add it to AGENTFLOW_MODELS"
                raise Rejected(f"no model is called {alias!r}", code="unknown_model", mend=mend)
            entry = Alias(model=self._fallback) if self._fallback else Alias(model=alias, provider="scripted")
        return entry

    def _resolve(self, alias: str, today: date) -> Price:
        entry = self._entry(alias)
        price = self._price(entry, today)
        if price is None:
            mend = (
                "give its input_usd_per_mtok and output_usd_per_mtok in AGENTFLOW_MODELS (0 when it is free), or have"
                f" the administrator set yours: agentflow prices set model:{alias} --input USD --output USD"
            )
            raise Rejected(
                f"the price of {entry.model} at {self._providers[entry.provider].base_url} is not known",
                code="unknown_price", mend=mend,
            )  # fmt: skip
        return price._replace(bytes_per_100_tokens=_bytes_per_100(entry))

    def _price(self, entry: Alias, today: date) -> Price | None:
        if entry.says_price:
            return entry.price(entry.provider, entry.model, "settings")
        if entry.provider == "scripted":
            return Price(entry.provider, entry.model, *SCRIPTED_PRICE)
        serves = self._providers[entry.provider]
        url = serves.base_url or OPENAI_URL
        return known_price(entry.provider, entry.model, url, today, service_tier(serves, url))

    def _open(self, provider: str) -> Model:
        if provider == "scripted":
            return ScriptedModel(self._script_dir)
        if provider not in self._providers:
            raise Rejected(
                f"there is no provider {provider}", code="unknown_provider", mend="add it to AGENTFLOW_MODELS"
            )
        from agentflow.models.openai import OpenAIModel

        entry = self._providers[provider]
        return OpenAIModel(
            provider,
            base_url=entry.base_url or OPENAI_URL,
            api_key=_key(provider, entry),
            output_limit=entry.output_limit,
            service_tier=service_tier(entry, entry.base_url or OPENAI_URL),
        )


def service_tier(provider: Provider, base_url: str) -> str:
    """Which of a provider's tiers of service is asked for; empty: that is left to it."""
    return provider.service_tier or ("default" if is_openai(base_url) else "")


def _names(aliases: Aliases) -> dict[tuple[str, str], frozenset[str]]:
    named: dict[tuple[str, str], frozenset[str]] = {}
    for alias in aliases.models.values():
        key = (alias.provider, alias.model)
        named[key] = named.get(key, frozenset()) | set(alias.known_as)
    return named


def _bytes_per_100(entry: Alias) -> int | None:
    """What is pinned of ``bytes_per_token``: a fifth less of it, in case a text has shorter tokens than most."""
    if entry.bytes_per_token is None:
        return None
    return max(100, int(entry.bytes_per_token * 100 * 4 / 5))


def _date(text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        mend = "give a day, e.g. 2026-11-01, or leave it empty for today's prices"
        raise Invalid([Problem("AGENTFLOW_PRICES_AT", "is not a date", mend, "bad_setting")]) from None


def _key(provider: str, entry: Provider) -> str:
    if entry.api_key_file is None:
        return entry.api_key
    try:
        return entry.api_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as fault:
        path = f"AGENTFLOW_MODELS.providers.{provider}.api_key_file"
        mend = "name a readable file that holds the key and nothing else"
        raise Rejected(f"cannot be read: {fault}", code="bad_setting", path=path, mend=mend) from None
