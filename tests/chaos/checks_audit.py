"""The check of the audit chain: it verifies after whatever has happened (invariant 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from agentflow.config import Settings
from agentflow.store.audit import verify
from agentflow.store.chain import ChainKeys
from agentflow.store.sealing import seal
from chaos.books import Books
from chaos.violation import Violation


async def check_chain(books: Books, dsn: Callable[[str], str]) -> AsyncIterator[Violation]:
    """12: once the rest is sealed, every tenant's chain and every run's leads to what is there."""
    keys = ChainKeys(Settings().audit_key)
    await seal(dsn("agentflow_relay"), keys)
    for tenant in books.round.tenants:
        done = await verify(dsn("agentflow_engine"), keys, tenant.id)
        for finding in done.findings:
            yield Violation(12, finding)
        runs = sum(run["tenant_id"] == tenant.id for run in books.tables["runs"])
        if (done.runs, done.uncovered) != (runs, 0) and not done.findings:
            yield Violation(12, f"tenant {tenant.id} has {runs} runs, and {done.runs} are in its chain")
