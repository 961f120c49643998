"""JetStream streams and durable consumers, as data: events/streams.json and the bus are made from it.

Interest retention drops a message when every consumer whose filter matches has acknowledged it, so consumers
are created before the first publish; what is lost all the same is re-issued from Postgres. What clients publish
exists nowhere else until plan has it: it is kept whether or not a consumer is there (a work queue), for which
only one consumer may be interested in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from agentflow.wire.catalogue import CATALOGUE, STREAM_OF_LANE, Lane
from agentflow.wire.event import MAX_EVENT_BYTES

NANOSECONDS = 1_000_000_000
DUPLICATE_WINDOW_MS = 120_000
NO_DUPLICATE_WINDOW_MS = 100
"""The least JetStream allows. Clients choose the message ids of AGENTFLOW_IN themselves, so a window would let
one tenant suppress another's events by guessing; the inbox recognises duplicates, tenant by tenant."""
FACTS_MAX_AGE_S = 7 * 24 * 3600
ACK_WAIT_S = 30
"""Seconds until an unacknowledged message comes again; long calls say ``in_progress`` every third of it."""
IN_ACK_WAIT_S = 6
"""The same for clients' events: nothing but JetStream brings them back when a process dies with them."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: all events of one lane, for every tenant."""

    name: str
    lane: Lane
    retention: Literal["interest", "limits", "workqueue"]
    max_age_s: int
    duplicate_window_ms: int
    description: str

    def config(self, replicas: int = 1) -> dict[str, Any]:
        """The stream's configuration as the JetStream API takes it; durations in nanoseconds."""
        return {
            "name": self.name,
            "description": self.description,
            "subjects": [f"agentflow.*.{self.lane}.>"],
            "retention": self.retention,
            "storage": "file",
            "num_replicas": replicas,
            "discard": "old",
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": self.max_age_s * NANOSECONDS,
            "max_msg_size": MAX_EVENT_BYTES,
            "duplicate_window": self.duplicate_window_ms * (NANOSECONDS // 1000),
        }


@dataclass(frozen=True, slots=True)
class Consumer:
    """One durable pull consumer, named as its function."""

    function: str
    stream: str
    filters: tuple[str, ...]
    max_ack_pending: int
    ack_wait_s: int
    begins: Literal["all", "new"] = "all"

    def config(self) -> dict[str, Any]:
        """The consumer's configuration as the JetStream API takes it; durations in nanoseconds.

        ``max_deliver`` is unlimited: the consumer itself parks a message that keeps failing, because
        JetStream would only stop delivering it.
        """
        return {
            "name": self.function,
            "durable_name": self.function,
            "deliver_policy": self.begins,
            "ack_policy": "explicit",
            "ack_wait": self.ack_wait_s * NANOSECONDS,
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
            "replay_policy": "instant",
            "filter_subjects": list(self.filters),
        }


STREAMS = (
    Stream(
        STREAM_OF_LANE["work"],
        "work",
        "interest",
        0,
        DUPLICATE_WINDOW_MS,
        "Requests and step results, until handled",
    ),
    Stream(
        STREAM_OF_LANE["fact"],
        "fact",
        "limits",
        FACTS_MAX_AGE_S,
        DUPLICATE_WINDOW_MS,
        "What became of runs, for seven days",
    ),
    Stream(
        STREAM_OF_LANE["in"],
        "in",
        "workqueue",
        0,
        NO_DUPLICATE_WINDOW_MS,
        "CloudEvents that clients publish, until handled",
    ),
)

# Messages handed out and not yet acknowledged. Pure functions take whole batches; effect functions hold one
# message per call in flight.
MAX_ACK_PENDING = {
    "plan": 1024,
    "dispatch": 4096,
    "account_cost": 4096,
    "invoke_llm": 1024,
    "run_tool": 1024,
}


def _consumers() -> tuple[Consumer, ...]:
    filters: dict[tuple[str, str], list[str]] = {}
    for entry in CATALOGUE.values():
        for function in entry.consumers:
            filters.setdefault((function, entry.stream), []).append(entry.subject("*"))
    filters["plan", STREAM_OF_LANE["in"]] = ["agentflow.*.in.>"]
    return tuple(
        Consumer(function, stream, tuple(subjects), MAX_ACK_PENDING[function], _ack_wait_s(stream))
        for (function, stream), subjects in sorted(filters.items())
    )


def _ack_wait_s(stream: str) -> int:
    return IN_ACK_WAIT_S if stream == STREAM_OF_LANE["in"] else ACK_WAIT_S


CONSUMERS = _consumers()

SINK = Consumer("sink", STREAM_OF_LANE["fact"], ("agentflow.*.fact.>",), 1024, ACK_WAIT_S, "new")
"""Public facts on their way to a sink over HTTP: made by the first bridge that has one, from then on."""


def consumers_of(function: str) -> tuple[Consumer, ...]:
    """The durable consumers a function drains, one per stream."""
    return tuple(consumer for consumer in CONSUMERS if consumer.function == function)
