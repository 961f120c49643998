"""Seams: the named places in the product where the harness reaches in, each by its path.

The product knows nothing of chaos. A worker wraps these before it starts; when one is renamed or moved, every
worker and ``test_seams`` say which, instead of quietly injecting nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

# name -> module:attribute. "Class.method" is wrapped on its class, a bare name in the module that uses it.
SEAMS: Mapping[str, str] = {
    # boundaries of what a process does: failpoints stand before and after each
    "take": "agentflow.runtime.receive:Receiver.pull",
    "commit": "agentflow.store.postgres:PostgresStore.commit",
    "save": "agentflow.store.postgres:Transaction.save",
    "publish": "agentflow.runtime.publisher:Publisher._publish",
    "send": "agentflow.bus.jetstream:JetStream.send",
    "claim": "agentflow.store.postgres:PostgresStore.claim",
    "call": "agentflow.runtime.performer:attempt",
    "report": "agentflow.runtime.performer:Performer._report",
    "ack": "nats.aio.msg:Msg.ack",
    "relay": "agentflow.runtime.relay:Relay._move",
    # waits of a minute that would only make every round a minute longer
    "fact_ms": "agentflow.runtime.batch:FACT_MS",
    "hold_grace_ms": "agentflow.core.decide.settlement:HOLD_GRACE_MS",
    "backoff_s": "agentflow.runtime.parking:BACKOFF_S",
    # where bugs are planted
    "advance": "agentflow.core.decide.turn:advance",
    "dispatch": "agentflow.core.decide.dispatch:decide",
    "account_cost": "agentflow.core.decide.account_cost:decide",
    "halt": "agentflow.core.decide.turn:Turn.halt",
    "keep": "agentflow.runtime.batch:Batch._keep",
    "consume": "agentflow.store.changes:Changes.consume",
    "request": "agentflow.store.changes:Changes.request",
    "inbox": "agentflow.store.postgres:Transaction.enter_inbox",
    "row": "agentflow.store.changes:Changes.row",
    "host": "agentflow.runtime.host:Host.__init__",
    "submit": "agentflow.runtime.host:Host.submit",
    "perform": "agentflow.models.effect:InvokeLlm.perform",
    "park": "agentflow.runtime.parking:Parking._keep",
    "remember": "agentflow.runtime.memory:Memory.keep",
    "relay_sql": "agentflow.runtime.relay:SQL",
}


class SeamGone(Exception):
    """A path in SEAMS leads nowhere: the product was changed, and the table has to follow."""


def find(name: str) -> tuple[Any, str, Any]:
    """The owner, the attribute and its present value; ``SeamGone`` names the path that does not exist."""
    path = SEAMS[name]
    module, _, attributes = path.partition(":")
    *owners, attribute = attributes.split(".")
    try:
        owner: Any = importlib.import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        return owner, attribute, getattr(owner, attribute)
    except (ImportError, AttributeError) as fault:
        raise SeamGone(f"seam {name!r}: {path} does not exist ({fault}); mend SEAMS in {__file__}") from fault


def replace(name: str, make: Callable[[Any], Any]) -> None:
    """Put ``make(original)`` in the place of a seam."""
    owner, attribute, original = find(name)
    setattr(owner, attribute, make(original))
