"""The event catalogue: every event type, what it says, which road it takes and who consumes it.

Requests ask one function to do something; facts say what happened. The tables here are the source of
events/catalogue.json, events/streams.json and the subjects and consumers that hosts create.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

from pydantic import ValidationError

from agentflow.errors import Invalid, Problem
from agentflow.wire import payloads as p
from agentflow.wire.event import JSON, JSON_TYPE, TYPE_PREFIX, Event, full_type
from agentflow.wire.json_format import to_dict
from agentflow.wire.json_value import MAX_PROBLEMS, check, dumps, loads

Kind = Literal["request", "fact"]
Lane = Literal["work", "fact", "in"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event type.

    ``lane`` is the third token of its subject and decides the stream. ``producers`` and ``consumers`` are
    function names (a producer may also be ``relay``). ``public`` events are for users to subscribe to, on
    ``public_subject``: a function in the same process as its producer gets its copy without the bus, and would
    otherwise get every published one as well.
    """

    name: str
    model: type[p.Payload]
    kind: Kind
    lane: Lane
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    public: bool = False

    @property
    def type(self) -> str:
        """The CloudEvent type: ``agentflow.<name>.v1``."""
        return full_type(self.name)

    @property
    def stream(self) -> str:
        """The JetStream stream that carries it."""
        return STREAM_OF_LANE[self.lane]

    def subject(self, tenant: UUID | str) -> str:
        """The NATS subject for one tenant: ``agentflow.<tenant>.<lane>.<name>``."""
        return f"{TYPE_PREFIX}{tenant}.{self.lane}.{self.name}"

    def public_subject(self, tenant: UUID | str) -> str:
        """Where users subscribe to it: ``agentflow.<tenant>.fact.<name>``."""
        return f"{TYPE_PREFIX}{tenant}.fact.{self.name}"


STREAM_OF_LANE: Mapping[Lane, str] = {
    "work": "AGENTFLOW_WORK",
    "fact": "AGENTFLOW_FACTS",
    "in": "AGENTFLOW_IN",
}

_EFFECTS = ("invoke_llm", "run_tool")
_ENTRIES = (
    #      name                    model              kind       lane    producers                   consumers
    Entry("run.requested", p.RunRequested, "request", "work", ("api", "plan", "dispatch"), ("plan",)),
    Entry("run.planned", p.RunPlanned, "fact", "work", ("plan",), ("dispatch",), public=True),
    Entry("llm.requested", p.LlmRequested, "request", "work", ("dispatch",), ("invoke_llm",)),
    Entry("tool.requested", p.ToolRequested, "request", "work", ("dispatch",), ("run_tool",)),
    Entry("step.completed", p.StepCompleted, "fact", "work", _EFFECTS, ("account_cost", "dispatch")),
    Entry("timer.fired", p.TimerFired, "request", "work", ("relay",), ("dispatch",)),
    Entry("run.cancel_requested", p.CancelRequested, "request", "work", ("api", "dispatch"), ("dispatch",)),
    Entry("run.pause_requested", p.PauseRequested, "request", "work", ("api", "dispatch"), ("dispatch",)),
    Entry("run.resume_requested", p.ResumeRequested, "request", "work", ("api", "dispatch"), ("dispatch",)),
    Entry("step.answered", p.StepAnswered, "request", "work", ("api",), ("dispatch",)),
    Entry("child.ended", p.ChildEnded, "fact", "work", ("plan", "dispatch"), ("dispatch",)),
    Entry("signal.received", p.SignalReceived, "request", "work", ("api", "plan"), ("dispatch",)),
    Entry("event.received", p.EventReceived, "request", "work", ("api",), ("plan",)),
    Entry("run.completed", p.RunCompleted, "fact", "fact", ("dispatch",), (), public=True),
    Entry("run.failed", p.RunFailed, "fact", "fact", ("plan", "dispatch"), (), public=True),
    Entry("run.cancelled", p.RunCancelled, "fact", "fact", ("plan", "dispatch"), (), public=True),
    Entry("run.paused", p.RunPaused, "fact", "fact", ("dispatch",), (), public=True),
    Entry("run.resumed", p.RunResumed, "fact", "fact", ("dispatch",), (), public=True),
    Entry("human.requested", p.HumanRequested, "fact", "fact", ("dispatch",), (), public=True),
    Entry("budget.exhausted", p.BudgetExhausted, "fact", "fact", ("dispatch",), (), public=True),
    Entry("budget.violation", p.BudgetViolation, "fact", "fact", ("account_cost",), (), public=True),
    Entry("budget.warning", p.BudgetWarning, "fact", "fact", ("account_cost",), (), public=True),
    Entry("budget.restored", p.BudgetRestored, "fact", "fact", ("account_cost",), (), public=True),
)

CATALOGUE: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}
_BY_TYPE: Mapping[str, Entry] = {entry.type: entry for entry in _ENTRIES}
_TYPES: Mapping[str, str] = {entry.name: entry.type for entry in _ENTRIES}


def entry(name: str) -> Entry:
    """The entry of a catalogue name; KeyError for an unknown one, which is a fault of ours."""
    return CATALOGUE[name]


def of_type(ce_type: str) -> Entry | None:
    """The entry of a CloudEvent type, or None when it is not in the catalogue."""
    return _BY_TYPE.get(ce_type)


def reserved(ce_type: str) -> bool:
    """Whether the type is in AgentFlow's namespace, so that no outsider may publish it."""
    return ce_type.startswith(TYPE_PREFIX)


def consumers(name: str) -> tuple[str, ...]:
    """The functions that consume events of this catalogue name."""
    return CATALOGUE[name].consumers


def consumed_by(function: str) -> tuple[str, ...]:
    """The catalogue names that a function consumes."""
    return tuple(e.name for e in _ENTRIES if function in e.consumers)


def subject(name: str, tenant: UUID | str) -> str:
    """The NATS subject of a catalogue name for one tenant."""
    return CATALOGUE[name].subject(tenant)


def incoming_subject(tenant: UUID | str, suffix: str) -> str:
    """The subject on which a tenant's clients publish CloudEvents from outside."""
    return f"{TYPE_PREFIX}{tenant}.in.{suffix}"


def tenant_of_subject(nats_subject: str) -> UUID | None:
    """The tenant a subject belongs to: its second token; None when it is not one of our subjects."""
    tokens = nats_subject.split(".", 3)
    if len(tokens) < 4 or tokens[0] != "agentflow":
        return None
    try:
        tenant = UUID(tokens[1])
    except ValueError:
        return None
    return tenant if str(tenant) == tokens[1] else None


def make(
    name: str,
    *,
    run: UUID | str | None,
    key: str,
    source_function: str,
    tenant: UUID,
    time: datetime,
    data: dict[str, Any],
    traceparent: str | None = None,
    tracestate: str | None = None,
    dataref: str | None = None,
) -> Event:
    """Make one of our own events: id ``<run>:<key>``, subject the run.

    ``data`` is not validated here (tests do that for every producer); it may hold UUIDs, which are written
    as text. The same run and key give the same id, which is how a re-issue is recognised.
    """
    return Event(
        f"{run}:{key}" if run is not None else key,
        f"/agentflow/{source_function}",
        _TYPES[name],
        str(run) if run is not None else None,
        time,
        tenant,
        data,
        JSON_TYPE,
        None,
        dataref,
        traceparent,
        tracestate,
    )


def received(foreign: Event, *, tenant: UUID, source_function: str, time: datetime) -> Event:
    """Wrap an event from outside as ``event.received``, with an id derived from its source and id.

    CloudEvents are the same when source and id are, so a second delivery gets the same id here.
    ``Invalid`` when its type is reserved or its data is nested too deep to be wrapped.
    """
    if reserved(foreign.type):
        mend = "use a type of your own, e.g. com.example.order.placed"
        raise Invalid([Problem("type", f"{foreign.type} is reserved", mend, "reserved_type")])
    problems = check(foreign.data) if not isinstance(foreign.data, bytes) else []
    if problems:
        raise Invalid(problems, code=problems[0].code)
    digest = sha256(f"{foreign.source}\n{foreign.id}".encode()).hexdigest()
    document: dict[str, JSON] = loads(dumps(to_dict(foreign.with_tenant(tenant))))
    return make(
        "event.received",
        run=None,
        key=f"in:{digest}",
        source_function=source_function,
        tenant=tenant,
        time=time,
        data={"event": document},
        traceparent=foreign.traceparent,
        tracestate=foreign.tracestate,
    )


def parse(event: Event) -> p.Payload:
    """The validated payload of one of our events; ``Invalid`` carries paths like ``data.usage.calls``.

    Members that this version does not know are let through: a later one may have written the event. The caller goes on
    with the data as it came, so that they are not lost either.
    """
    found = _BY_TYPE.get(event.type)
    if found is None:
        mend = "see events/README.md for the types there are"
        raise Invalid([Problem("type", f"{event.type!r} is not in the catalogue", mend, "unknown_type")])
    if event.data is None and event.dataref is not None:
        raise Invalid([Problem("dataref", "has to be fetched before parsing", code="claim_check")])
    try:
        return found.model.model_validate(event.data, extra="ignore")
    except ValidationError as fault:
        raise Invalid(problems_of(fault, "data"), code="bad_data") from None


def problems_of(fault: ValidationError, root: str) -> list[Problem]:
    """Pydantic's errors as problems with paths below ``root``."""
    found = []
    for error in fault.errors(include_url=False, include_context=False, include_input=False)[:MAX_PROBLEMS]:
        path = root
        for part in error["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        mend = _MENDS.get(error["type"], "")
        found.append(Problem(path[:300], error["msg"], mend, "bad_data"))
    return found


_MENDS = {
    "extra_forbidden": "remove it",
    "missing": "add it",
}
