"""Which model an alias stands for, at which price, and who answers for it."""

from __future__ import annotations

import re
from pathlib import Path

from agentflow.config import Settings
from agentflow.errors import Invalid, Problem, Rejected
from agentflow.models.aliases import Alias, Aliases, Provider, read_aliases
from agentflow.models.model import Model, ModelRef
from agentflow.models.prices import known_price, micro_per_mtok
from agentflow.models.scripted import PRICE as SCRIPTED_PRICE
from agentflow.models.scripted import ScriptedModel

OPENAI_URL = "https://api.openai.com/v1"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class ModelCatalogue:
    """Aliases resolved once each, providers opened when first called.

    An alias is looked up in the alias table; else ``fallback`` serves it; without either, the scripted model.
    """

    def __init__(
        self, aliases: Aliases, *, fallback: str, script_dir: Path, base_url: str = "", api_key: str = ""
    ) -> None:
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
        self._resolved: dict[str, ModelRef] = {}
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
        )

    def resolve(self, alias: str) -> ModelRef:
        """What ``alias`` stands for. ``Rejected``: unknown_model, or unknown_price, as nothing unpriced is called."""
        ref = self._resolved.get(alias)
        if ref is None:
            ref = self._resolved[alias] = self._resolve(alias)
        return ref

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

    def _resolve(self, alias: str) -> ModelRef:
        entry = self._aliases.models.get(alias)
        if entry is None:
            if not _ALIAS.fullmatch(alias) or (self._aliases.models and not self._fallback):
                known = ", ".join(sorted(self._aliases.models)) or "a name like small"
                mend = f"use {known}, or add it to AGENTFLOW_MODELS"
                raise Rejected(f"no model is called {alias!r}", code="unknown_model", mend=mend)
            entry = Alias(model=self._fallback) if self._fallback else Alias(model=alias, provider="scripted")
        price = self._price(entry)
        if price is None:
            mend = "give its input_usd_per_mtok and output_usd_per_mtok in AGENTFLOW_MODELS (0 when it is free)"
            raise Rejected(
                f"the price of {entry.model} at {self._providers[entry.provider].base_url} is not known",
                code="unknown_price", mend=mend,
            )  # fmt: skip
        return ModelRef(entry.provider, entry.model, *price)

    def _price(self, entry: Alias) -> tuple[int, int, str] | None:
        if entry.input_usd_per_mtok is not None and entry.output_usd_per_mtok is not None:
            given = micro_per_mtok(entry.input_usd_per_mtok), micro_per_mtok(entry.output_usd_per_mtok)
            return *given, "settings"
        if entry.provider == "scripted":
            return SCRIPTED_PRICE
        return known_price(entry.model, self._providers[entry.provider].base_url or OPENAI_URL)

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
        )


def _key(provider: str, entry: Provider) -> str:
    if entry.api_key_file is None:
        return entry.api_key
    try:
        return entry.api_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as fault:
        path = f"AGENTFLOW_MODELS.providers.{provider}.api_key_file"
        mend = "name a readable file that holds the key and nothing else"
        raise Rejected(f"cannot be read: {fault}", code="bad_setting", path=path, mend=mend) from None
