"""The alias table: which models a workflow's names stand for, who serves them, and what they cost.

    providers:
      local: {base_url: http://127.0.0.1:11434/v1}        # api_key or api_key_file, output_limit
    models:
      small: {provider: local, model: llama3.2, input_usd_per_mtok: 0, output_usd_per_mtok: 0}
      large: {model: gpt-5-mini}                          # provider openai; the price is known
      ours: {provider: local, model: qwen3, usd_per_second: 0.0006, tokenizer: qwen3/tokenizer.json}

What else a price may have is in card.py. How a request's tokens are counted for its hold: by ``tokenizer`` (a Hugging
Face tokenizer.json), or by ``bytes_per_token``; without either each byte counts as a token, which is never too few.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from agentflow.errors import Invalid, Problem
from agentflow.models.card import Card, Part, card_problems
from agentflow.wire.document_bounds import MAX_BYTES
from agentflow.wire.document_text import load

PATH = "AGENTFLOW_MODELS"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Label = Annotated[str, Field(min_length=1, max_length=200)]


class Provider(Part):
    """An OpenAI-compatible API. ``output_limit`` names the field that limits a reply's tokens; auto: what the
    server at ``base_url`` is known to heed, or asks for. ``service_tier``: which of its tiers is asked for, and priced;
    OpenAI is asked for its default one, whatever a project of theirs is set to.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+", max_length=2000)] | None = None
    api_key: str = Field(default="", repr=False)
    api_key_file: Path | None = None
    output_limit: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    service_tier: Annotated[str, Field(pattern=r"^[a-z_]{1,32}$")] | None = None

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key and self.api_key_file:
            raise ValueError("give api_key or api_key_file, not both")
        return self


class Alias(Card):
    """A model, with its price where no price list knows it.

    ``known_as``: how its server names it in its answers, where that is neither ``model`` nor a dated name of it; "*":
    whatever it says. ``context_tokens``: how many tokens it can be told, for what is expected of a call.
    What is held for one does not rely on it.
    """

    model: Label
    provider: Name = "openai"
    known_as: Annotated[list[Label], Field(max_length=100)] = Field(default_factory=list)
    tokenizer: Path | None = None
    bytes_per_token: Annotated[Decimal, Field(ge=1, le=8, decimal_places=2, allow_inf_nan=False)] | None = None
    context_tokens: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)] | None = None

    @model_validator(mode="after")
    def _one_count(self) -> Self:
        if self.tokenizer is not None and self.bytes_per_token is not None:
            raise ValueError("give tokenizer or bytes_per_token, not both")
        return self


class Aliases(Part):
    """The whole table."""

    providers: dict[Name, Provider] = Field(default_factory=dict)
    models: dict[Name, Alias] = Field(default_factory=dict)


def read_aliases(setting: str) -> Aliases:
    """The table in ``setting``: JSON text, or the path of a YAML or JSON file. ``Invalid`` names each fault."""
    if not setting.strip():
        return Aliases()
    data = setting.encode()
    if not setting.lstrip().startswith("{"):
        try:
            with Path(setting).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as fault:
            mend = "give JSON, or the path of a YAML or JSON file"
            raise Invalid([Problem(PATH, f"{setting}: {fault.strerror}", mend, "bad_setting")]) from None
    try:
        table = Aliases.model_validate(load(data))
    except ValidationError as fault:
        raise Invalid(card_problems(fault, PATH)) from None
    except Invalid as fault:
        named = [Problem(f"{PATH}.{p.path}".rstrip("."), p.message, p.mend, p.code) for p in fault.problems]
        raise Invalid(named) from None
    faults = [
        Problem(f"{PATH}.providers.{name}.base_url", "is missing", "say where the provider answers", "bad_data")
        for name, provider in table.providers.items()
        if provider.base_url is None and name != "openai"
    ]
    faults += [
        Problem(f"{PATH}.models.{name}.provider", f"there is no provider {alias.provider!r}",
                "add it to providers, or use openai or scripted", "unknown_provider")
        for name, alias in table.models.items()
        if alias.provider not in table.providers and alias.provider not in ("openai", "scripted")
    ]  # fmt: skip
    if faults:
        raise Invalid(faults)
    return table
