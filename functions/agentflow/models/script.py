"""Rules of the scripted model: read from a file, matched against a conversation, filled into a reply."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.errors import Invalid, Problem, Rejected
from agentflow.wire.catalogue import problems_of
from agentflow.wire.document_bounds import MAX_BYTES
from agentflow.wire.document_text import load

SUFFIX = ".model.yaml"
"""How the name of a file with rules ends."""

Finish = Literal["stop", "length", "refusal", "content_filter"]
Millis = Annotated[int, Field(ge=0, le=600_000)]
Pattern = Annotated[str, Field(min_length=1, max_length=2000)]

_PLACE = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]*)(?::(int|number))?\}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptedError(_Part):
    """A failure instead of a reply; with ``retry_after_ms`` a passing one."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    message: str = "the script says so"
    retry_after_ms: Millis | None = None
    times: Annotated[int, Field(ge=1)] | None = None


Arguments = dict[str, Any]


class _WrittenRule(_Part):
    model: str | None = None
    prompt: Pattern
    role: Literal["system", "user", "tool"] | None = None
    find: dict[str, Pattern] = {}
    reply: str | dict[str, Any] = ""
    replies: Annotated[list[str | dict[str, Any]], Field(max_length=1000)] = []
    call: dict[str, Arguments | list[Arguments]] = {}
    latency_ms: Millis = 0
    finish: Finish = "stop"
    error: ScriptedError | None = None


class _Script(_Part):
    rules: Annotated[list[_WrittenRule], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its patterns compiled."""

    model: str | None
    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    reply: str | dict[str, Any]
    latency_ms: int
    finish: Finish
    error: ScriptedError | None
    role: str | None = None
    calls: tuple[tuple[str, Arguments], ...] = ()
    replies: tuple[str | dict[str, Any], ...] = ()

    def choose(self, messages: Sequence[Mapping[str, Any]]) -> str | dict[str, Any]:
        """The reply; of several the one that follows from the conversation, so that the same has always the same."""
        if not self.replies:
            return self.reply
        digest = blake2b(_text(messages).encode(), digest_size=8).digest()
        return self.replies[int.from_bytes(digest) % len(self.replies)]

    def match(self, model: str, messages: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        """What the rule finds in the conversation, by name; None when it does not apply."""
        if self.model is not None and self.model != model:
            return None
        found: dict[str, str] = {}
        text = last = _text(messages)
        if self.role is not None:
            others = [place for place, message in enumerate(messages) if message["role"] != self.role]
            last = _text(messages[max(others, default=-1) + 1 :])
        for name, pattern in self.patterns:
            match = pattern.search(text if name else last)
            if match is None:
                return None
            found.update({key: value or "" for key, value in match.groupdict().items()})
            if name:
                found[name] = match.group(1) if pattern.groups else match.group(0)
        return found


def _text(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(message["content"] for message in messages)


def read_script(file: Path) -> list[Rule]:
    """The rules in a file; ``Invalid`` names the file and the rule of each fault."""
    try:
        with file.open("rb") as opened:
            script = _Script.model_validate(load(opened.read(MAX_BYTES + 1)))
    except OSError as fault:
        raise Invalid([Problem(str(file), f"cannot be read: {fault.strerror}", code="bad_script")]) from None
    except ValidationError as fault:
        raise Invalid(problems_of(fault, str(file)), code="bad_script") from None
    except Invalid as fault:
        named = [Problem(f"{file}: {p.path}".rstrip(": "), p.message, p.mend, p.code) for p in fault.problems]
        raise Invalid(named, code="bad_script") from None
    return [_compile(rule, f"{file}.rules[{number}]") for number, rule in enumerate(script.rules)]


def _compile(rule: _WrittenRule, path: str) -> Rule:
    patterns = []
    names: set[str] = set()
    for name, text in [("", rule.prompt), *rule.find.items()]:
        at = f"{path}.find.{name}" if name else f"{path}.prompt"
        try:
            pattern = re.compile(text, re.MULTILINE)
        except re.error as fault:
            message = f"is not a regular expression: {fault}"
            raise Invalid([Problem(at, message, code="bad_script")], code="bad_script") from None
        patterns.append((name, pattern))
        names.update(pattern.groupindex, [name] if name else [])
    calls = tuple(
        (name, given) for name, many in rule.call.items() for given in (many if isinstance(many, list) else [many])
    )
    for wanted in sorted(_wanted([rule.reply, *rule.replies, *(given for _, given in calls)])):
        if wanted not in names:
            mend = "name a group of prompt, (?P<name>...), or a key of find"
            message = f"{{{wanted}}} is not found by the rule"
            raise Invalid([Problem(f"{path}.reply", message, mend, "bad_script")], code="bad_script")
    if rule.reply and rule.replies:
        message = "has `replies`, too: one of them is given"
        raise Invalid([Problem(f"{path}.reply", message, "keep one of both", "bad_script")], code="bad_script")
    return Rule(
        rule.model, tuple(patterns), rule.reply, rule.latency_ms, rule.finish, rule.error, rule.role, calls,
        tuple(rule.replies),
    )  # fmt: skip


def fill(reply: Any, found: dict[str, str]) -> Any:
    """The reply with what was found in its places."""
    if isinstance(reply, dict):
        return {key: fill(value, found) for key, value in reply.items()}
    if isinstance(reply, list):
        return [fill(value, found) for value in reply]
    if not isinstance(reply, str):
        return reply
    alone = _PLACE.fullmatch(reply)
    if alone and alone.group(2):
        return _number(found[alone.group(1)], alone.group(2))
    return _PLACE.sub(lambda m: found[m.group(1)] if m.group(1) else m.group(0)[0], reply)


def _number(text: str, kind: str) -> int | float:
    try:
        number = float(text.replace(",", "").strip().rstrip("%"))
        return int(number) if kind == "int" else number
    except (ValueError, OverflowError):
        message = f"a rule of the scripted model takes {text[:80]!r} for a number"
        raise Rejected(message, code="bad_script", mend="narrow the pattern that finds it") from None


def _wanted(reply: Any) -> set[str]:
    if isinstance(reply, dict):
        return set().union(*(_wanted(value) for value in reply.values()))
    if isinstance(reply, list):
        return set().union(*(_wanted(value) for value in reply))
    return {name for name, _ in _PLACE.findall(reply) if name} if isinstance(reply, str) else set()
