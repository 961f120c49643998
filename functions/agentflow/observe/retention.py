"""Metrics of retention: what was removed and archived, and when all was last in order."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge

from agentflow.observe.metrics import registry

TABLES = frozenset({"runs", "steps", "history", "ledger", "inbox", "parked", "blobs", "spend", "run_spend"})

REMOVED = Counter(
    "agentflow_retention_removed_rows",
    "Rows removed because their time was over.",
    ["table"],
    registry=registry,
)
FREED = Counter(
    "agentflow_retention_freed_bytes",
    "Bytes of partitions dropped, and about those of rows deleted.",
    registry=registry,
)
ARCHIVED = Counter("agentflow_archive_bytes", "Compressed bytes written to the archive.", registry=registry)
FAILED = Counter("agentflow_retention_failures", "Sweeps that ended with an error.", registry=registry)
LAST = Gauge(
    "agentflow_retention_last_success_timestamp_seconds",
    "When a sweep last left nothing to do.",
    registry=registry,
)
PROVIDED = Gauge(
    "agentflow_retention_provided_timestamp_seconds", "When partitions were last seen to.", registry=registry
)


def removed(table: str, rows: int) -> None:
    """Count rows that are gone."""
    if rows:
        REMOVED.labels(table if table in TABLES else "other").inc(rows)


def freed(size: int) -> None:
    """Count bytes that are free again."""
    FREED.inc(size)


def archived(size: int) -> None:
    """Count bytes that were archived."""
    ARCHIVED.inc(size)


def failed() -> None:
    """Count a sweep that ended with an error."""
    FAILED.inc()


def provided() -> None:
    """Partitions are there for the weeks to come."""
    PROVIDED.set(time.time())


def succeeded() -> None:
    """All whose time was over is gone."""
    LAST.set(time.time())
