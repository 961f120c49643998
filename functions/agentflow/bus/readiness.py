"""Whether NATS can be worked with: one line for what is wrong with it, and how to mend that.

All of it may be mended from outside while a host waits, so every fault is a ``RetryLater``.
"""

from __future__ import annotations

from nats.js.errors import APIError

from agentflow.errors import RetryLater

# What the client or the server says, in the order it is looked for.
MENDS = (
    ("Authorization Violation", "correct user and password in AGENTFLOW_NATS_URL"),
    ("Permissions Violation", "let this user publish to and subscribe agentflow.>, $JS.API.> and _INBOX.>"),
    ("certificate", "renew it, or name who has signed it in AGENTFLOW_NATS_CA"),
    ("not enabled", "start it with JetStream: nats-server -js, or jetstream {} in its settings"),
    ("no responders", "start it with JetStream: nats-server -js, or jetstream {} in its settings"),
    ("subjects overlap", "another stream takes our subjects (agentflow.*): remove it, or give it others"),
    ("non-clustered", "set AGENTFLOW_NATS_REPLICAS to 1, or have as many servers in a cluster"),
    ("no suitable peers", "set AGENTFLOW_NATS_REPLICAS to as many servers as there are"),
    ("insufficient", "give JetStream more room, or remove streams"),
)
REACH = "start it, or correct AGENTFLOW_NATS_URL"


def unready(fault: BaseException, url: str, heard: str = "") -> RetryLater:
    """What a fault at start means, in one line; ``heard``: what the client complained of meanwhile."""
    said = [text for text in (str(fault) or type(fault).__name__, heard) if text]
    for words, mend in MENDS:
        found = next((text for text in said if words.casefold() in text.casefold()), "")
        if found:
            return RetryLater(f"NATS: {_plain(found)} ({mend})")
    if isinstance(fault, APIError):
        return RetryLater(f"NATS: {_plain(said[0])}")
    where = ",".join(server.rpartition("@")[2] for server in url.split(","))  # without user and password
    return RetryLater(f"NATS can't be reached at {where}: {_plain(heard or said[0])} ({REACH})")


def misfit(what: str, mend: str) -> RetryLater:
    """A stream or consumer that is there with other settings than ours."""
    return RetryLater(f"NATS: {what} ({mend})", code="misfit")


def _plain(text: str) -> str:
    return " ".join(text.removeprefix("nats: ").split())
