"""Counting tokens before a call, with the tokenizer of a model: less is held than for a byte each.

A server frames what it is sent in its own way, and its tokenizer may be another version's: the count is raised by a
tenth. It is never raised above a byte each, unless the tokenizer itself counts more. Long texts are not counted, but
taken for a token each byte: nothing else is decided while one is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from agentflow.core.money import Count
from agentflow.errors import Invalid, Problem
from agentflow.models.aliases import PATH, Aliases, read_aliases

MARGIN_PERCENT = 10
LONGEST = 262_144
"""Bytes of a text that is counted, which takes some tens of milliseconds."""
KEPT = 4_096
"""Texts whose counts are remembered: a conversation is sent again with each of its turns."""


class Tokens:
    """What counts the texts of an alias, by its ``tokenizer``; None for an alias without one.

    All are read at once: what does not work is said before anything is held by it, and nobody waits for it later.
    """

    def __init__(self, aliases: Aliases) -> None:
        self._counts = {
            name: counting(alias.tokenizer, f"{PATH}.models.{name}.tokenizer")
            for name, alias in aliases.models.items()
            if alias.tokenizer is not None
        }

    @classmethod
    def of(cls, setting: str) -> Callable[[str], Count | None] | None:
        """By the alias table that ``setting`` is; None where no alias has a tokenizer. ``Invalid`` when a file or the
        library is missing."""
        tokens = cls(read_aliases(setting))
        return tokens if tokens._counts else None

    def __call__(self, alias: str) -> Count | None:
        return self._counts.get(alias)


def counting(file: Path, path: str) -> Count:
    """What counts with a tokenizer of Hugging Face's form; ``Invalid`` when the file holds none."""
    if not file.is_file():
        mend = "name a readable tokenizer.json, or give bytes_per_token"
        raise Invalid([Problem(path, f"there is no file {file}", mend, "bad_setting")])
    try:
        from tokenizers import Tokenizer
    except ImportError:
        mend = "pip install 'agentflow[tokenizers]', or give bytes_per_token"
        raise Invalid([Problem(path, "the library tokenizers is not installed", mend, "bad_setting")]) from None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as fault:  # the library raises no narrower class
        mend = "name a tokenizer.json as models on Hugging Face's hub have"
        raise Invalid([Problem(path, f"is no tokenizer: {fault}"[:300], mend, "bad_setting")]) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _Counter(tokenizer)


class _Counter:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def __call__(self, text: str) -> int:
        data = text.encode()
        if len(data) > LONGEST:
            return len(data)
        key = blake2b(data, digest_size=16).digest()
        known = self._known.get(key)
        if known is None:
            counted = len(self._tokenizer.encode(text, add_special_tokens=False).ids)
            raised = -(-counted * (100 + MARGIN_PERCENT) // 100)
            known = self._known[key] = max(counted, min(raised, len(data)))
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known
