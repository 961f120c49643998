"""What an OpenAI-compatible server's refusal means: give up, try later, or ask in another form."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

from agentflow.core.money import CONNECTION_LOST
from agentflow.errors import AgentFlowError, Rejected, RetryLater

LONGEST_PAUSE_S = 3600.0
PASSING = frozenset({408, 409, 425, 429})
# What something between us and the provider says that has waited too long: the provider may have worked, and bill it.
GIVEN_UP = frozenset({504, 524})
# Faults of httpx before a request is on its way.
NEVER_ASKED = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"})
# Said with 429 or 403 when the account has no money left: waiting does not help.
QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})


def error_from(fault: Any, provider: str, model: str, api_key: str, *, tools: bool = False) -> AgentFlowError:
    """An ``openai.APIStatusError`` as one of ours: ``RetryLater`` for what passes, else ``Rejected``. ``tools``: it
    offered some."""
    status = int(fault.status_code)
    said = told(fault, api_key)
    message = f"{provider} answered {status}: {said}" if said else f"{provider} answered {status}"
    if tools and status not in (401, 403, 429) and _has_no_tools(said.lower()):
        mend = f"have agents use a model that calls tools, or start the server so that {model} does"
        return Rejected(message, code="tools_unsupported", mend=mend)
    if fault.code in QUOTA or fault.type in QUOTA:
        return Rejected(message, code="model_quota", mend="check the account's plan and billing")
    if status in PASSING or status >= 500:
        code = CONNECTION_LOST if status in GIVEN_UP else "rate_limited" if status == 429 else "model_unavailable"
        return RetryLater(message, after=pause(fault.response.headers), code=code)
    if status in (401, 403):
        return Rejected(message, code="model_unauthorized", mend="check AGENTFLOW_LLM_API_KEY")
    if status == 404:
        mend = f"check that the server at this base URL has the model {model}"
        return Rejected(message, code="unknown_model", mend=mend)
    if fault.code == "context_length_exceeded":
        return Rejected(message, code="prompt_too_long", mend="shorten the prompt or lower max_tokens")
    return Rejected(message, code="model_rejected")


def unreachable(fault: Any, provider: str, base_url: str) -> RetryLater:
    """An ``openai.APIConnectionError``: the server may come up, so it is worth another try. What breaks off once there
    was a connection may have been answered, and may be billed for."""
    cause = fault.__cause__ or fault
    reason = f"{type(cause).__name__}: {cause}".rstrip(": ")
    if type(cause).__name__ in NEVER_ASKED:
        return RetryLater(f"{provider} cannot be reached at {base_url} ({reason})"[:500], code="model_unreachable")
    return RetryLater(f"the connection to {provider} at {base_url} broke off ({reason})"[:500], code=CONNECTION_LOST)


def pause(headers: Any) -> float:
    """Seconds the server asks to wait (``retry-after-ms``, ``retry-after`` in seconds or as a date); 1 if not."""
    text = headers.get("retry-after-ms", "")
    after = _number(text, 0.001)
    if after is None:
        text = headers.get("retry-after", "")
        after = _number(text, 1.0)
    if after is None:
        try:
            after = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError):
            after = 1.0
    return min(max(after, 0.0), LONGEST_PAUSE_S)


def asks_for_other_limit(fault: Any, sent: str, other: str) -> bool:
    """Whether the server refuses the name of the limit, rather than its value."""
    if fault.status_code not in (400, 422):
        return False
    said = told(fault, "").lower()
    names_ours = fault.param == sent or sent in said
    unsupported = fault.code in ("unsupported_parameter", "unknown_parameter") or any(
        word in said for word in ("unsupported", "not supported", "unrecognized", "extra inputs", "unexpected")
    )
    return names_ours and (unsupported or f"use '{other}'" in said)


def cannot_be_strict(fault: Any) -> bool:
    """Whether the server refuses ``response_format``: it cannot enforce a schema, or not this one."""
    if fault.status_code not in (400, 404, 422, 501):
        return False
    if str(fault.param or "").startswith("response_format"):
        return True
    said = told(fault, "").lower()
    return any(word in said for word in ("response_format", "json_schema", "structured output", "guided"))


def _has_no_tools(said: str) -> bool:
    """Whether that is how servers say that they, or a model, cannot call tools."""
    lacks = ("support", "enable", "require", "unrecognized", "unknown", "extra inputs")
    return any(word in said for word in lacks) and re.search(r"\btools?\b|\btool_|function[_ -]call", said) is not None


def cannot_be_strict_tools(fault: Any) -> bool:
    """Whether the server refuses to hold a model to the schemas of tools, or those it was given."""
    if fault.status_code not in (400, 404, 422, 501):
        return False
    if str(fault.param or "").startswith("tools"):
        return True
    said = told(fault, "").lower()
    return "strict" in said or "schema for function" in said


def told(fault: Any, api_key: str) -> str:
    """The server's message in one printable line, without the key, should it repeat it."""
    body = fault.body
    said = body.get("message") if isinstance(body, dict) else body
    text = str(said if said is not None else fault.message)
    if len(api_key) >= 8:
        text = text.replace(api_key, "***")
    return " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())[:500]


def _number(text: str, unit: float) -> float | None:
    try:
        value = float(text) * unit
    except ValueError:
        return None
    return value if value == value else None
