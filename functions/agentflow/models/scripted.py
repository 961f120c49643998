"""The scripted model: answers from rules in ``*.model.yaml`` files, offline, the same every time.

    rules:
      - model: small                       # optional: only for this alias
        prompt: 'Severity of (?P<what>.+)' # regular expression, searched in the whole conversation
        find: {errors: 'errors: (\\d+)'}    # more values; the rule applies only where all are found
        reply: {severity: high, errors: '{errors:int}', text: '{what} has {errors} errors'}
        replies: [short, somewhat longer]  # in place of reply: one of them, by what the conversation is
        latency_ms: 40                     # optional, as are the next two
        finish: stop                       # or length, refusal, content_filter
        error: {code: rate_limited, message: slow down, retry_after_ms: 50, times: 2}
      - role: user                         # only when the user has said something last, and the prompt matches that
        prompt: 'Find out about (?P<what>.+)'
        call: {search: {query: '{what}'}, fetch: [{page: 1}, {page: 2}]}   # tools, once or several times each
      - role: tool                         # only after tools were called, and the prompt matches what they gave
        prompt: '"stock":(\\d+)'
        reply: There is some.

The first rule that applies answers. ``{name}`` in a reply is what was found; ``{name:int}`` and ``{name:number}``,
alone in a value, are numbers. ``error`` fails instead: always, or the first ``times`` times in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from agentflow.errors import Rejected, RetryLater
from agentflow.models.model import Call, Reply, Request, Usage
from agentflow.models.script import SUFFIX, Rule, fill, read_script

PRICE = (250_000, 2_000_000, "scripted-1")
"""Micro-dollars per million tokens in and out: of a small hosted model, so that samples show a cost."""

PATTERN = "*" + SUFFIX
MAX_FILES = 200
BYTES_PER_TOKEN = 4
LOOK_AGAIN_S = 1.0


class ScriptedModel:
    """Plays every model by the rules found below ``folder``; files that change are read again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rules: list[Rule] = []
        self._files: dict[Path, float] = {}
        self._looked = float("-inf")
        self._failed: dict[int, int] = {}

    async def complete(self, request: Request) -> Reply:
        self._refresh()
        for number, rule in enumerate(self._rules):
            found = rule.match(request.model, request.messages)
            if found is None:
                continue
            if rule.latency_ms:
                await asyncio.sleep(rule.latency_ms / 1000)
            self._fail(number, rule)
            reply = fill(rule.choose(request.messages), found)
            said = reply if isinstance(reply, str) else orjson.dumps(reply).decode()
            calls = [
                Call(f"call_{place}", name, orjson.dumps(fill(given, found)).decode())
                for place, (name, given) in enumerate(rule.calls)
            ]
            return replace(cut(said, usage(request, said, calls), request, rule.finish), calls=tuple(calls))
        where = ", ".join(str(file) for file in self._files) or f"{self._folder}/{PATTERN} (there is none yet)"
        text = "\n".join(message["content"] for message in request.messages)
        start = " ".join(text.split())[:120]
        raise Rejected(
            f"no rule of the scripted model answers {request.model}: {start!r}",
            code="no_scripted_reply",
            mend=f"add a rule to {where}, or set AGENTFLOW_MODEL and AGENTFLOW_LLM_BASE_URL to a real model",
        )

    async def close(self) -> None:
        """Nothing is held."""

    def _fail(self, number: int, rule: Rule) -> None:
        if rule.error is None:
            return
        failed = self._failed[number] = self._failed.get(number, 0) + 1
        if rule.error.times is not None and failed > rule.error.times:
            return
        if rule.error.retry_after_ms is None:
            raise Rejected(rule.error.message, code=rule.error.code)
        raise RetryLater(rule.error.message, after=rule.error.retry_after_ms / 1000, code=rule.error.code)

    def _refresh(self) -> None:
        """Read the rules where a file came, went or changed; looks at most once a second."""
        now = time.monotonic()
        if now - self._looked < LOOK_AGAIN_S:
            return
        self._looked = now
        files = sorted(self._folder.rglob(PATTERN))[:MAX_FILES]
        seen = {file: file.stat().st_mtime for file in files}
        if seen != self._files:
            self._rules = [rule for file in files for rule in read_script(file)]
            self._files = seen
            self._failed.clear()


def usage(request: Request, said: str, calls: Sequence[Call] = ()) -> Usage:
    """Tokens by the length of the text, the same on every machine: one per four bytes, and a frame per message."""
    asked = sum(tokens(message["content"]) + 4 for message in request.messages)
    forms = [request.output_schema, *request.tools, *(message.get("calls") for message in request.messages)]
    asked += sum(tokens(orjson.dumps(form).decode()) for form in forms if form)
    made = sum(tokens(call.name) + tokens(call.arguments) for call in calls)
    return Usage(asked, max(1, tokens(said) + made))


def tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def cut(said: str, used: Usage, request: Request, finish: str) -> Reply:
    """The reply, cut off where it exceeds the tokens asked for, as a real model's would be."""
    limit = request.max_output_tokens
    if used.output_tokens <= limit:
        return Reply(said, used, request.model, finish)
    kept = said.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
    return Reply(kept, Usage(used.input_tokens, limit), request.model, "length")
