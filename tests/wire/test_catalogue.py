"""The catalogue: our own events are made, parsed and routed by it; faults in data are addressed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from agentflow.errors import Invalid
from agentflow.wire import catalogue, json_format
from agentflow.wire.event import Event
from agentflow.wire.examples import example
from agentflow.wire.payloads import EventReceived, SignalReceived, StepCompleted

TENANT = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
RUN = UUID("018f3a5e-7d2c-7b1a-9c55-3f1f6f2a9b10")
NOW = datetime(2025, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


def signal(**changes: Any) -> Event:
    data: dict[str, Any] = {"run": RUN, "name": "approved", "data": {"by": ["me"]}}
    return catalogue.make(
        "signal.received",
        run=RUN,
        key="signal.1",
        source_function="api",
        tenant=TENANT,
        time=NOW,
        data=data | changes,
    )


def faults(event: Event) -> list[str]:
    with pytest.raises(Invalid) as caught:
        catalogue.parse(event)
    return sorted(problem.path for problem in caught.value.problems)


def test_an_event_of_ours_is_addressed_by_run_and_key() -> None:
    event = signal()
    assert (event.id, event.subject) == (f"{RUN}:signal.1", str(RUN))
    assert (event.type, event.name, event.ours) == ("agentflow.signal.received.v1", "signal.received", True)
    assert event.source == "/agentflow/api"


def test_a_payload_is_the_same_before_and_after_the_wire() -> None:
    event = signal()
    parsed = catalogue.parse(event)
    assert parsed == SignalReceived(run=RUN, name="approved", data={"by": ["me"]})
    assert catalogue.parse(json_format.decode(json_format.encode(event))) == parsed


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"run": "not-a-uuid"}, ["data.run"]),
        ({"name": ""}, ["data.name"]),
        ({"name": 5}, ["data.name"]),
        ({"step": 0}, ["data.step"]),
        ({"step": "1"}, ["data.step"]),
        ({"step": True}, ["data.step"]),
        ({"step": 1.0}, ["data.step"]),
        ({"name": None, "step": "1"}, ["data.name", "data.step"]),
    ],
)
def test_a_fault_in_the_data_is_addressed(changes: dict[str, Any], paths: list[str]) -> None:
    assert faults(signal(**changes)) == paths


def test_paths_reach_into_lists_and_maps() -> None:
    event = example("llm.requested")
    assert isinstance(event.data, dict)
    data = {**event.data, "messages": [{"role": "user", "content": "a"}, {"role": "robot", "content": "b"}]}
    assert faults(event.with_data(data)) == ["data.messages[1].role"]
    planned = example("run.planned")
    assert isinstance(planned.data, dict)
    models = {"fast": {"provider": "p", "model": "m"}}
    assert faults(planned.with_data({**planned.data, "models": models})) == [
        "data.models.fast.input_micro_per_mtok",
        "data.models.fast.output_micro_per_mtok",
        "data.models.fast.price_version",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"error": {"code": "c", "message": "m", "retryable": False}},
        {"output": None},
        {"status": "failed"},
        {"status": "failed", "output": None},
    ],
)
def test_a_step_has_an_output_or_an_error_never_both_or_neither(changes: dict[str, Any]) -> None:
    event = example("step.completed")
    assert isinstance(event.data, dict)
    assert isinstance(catalogue.parse(event), StepCompleted)
    assert faults(event.with_data({**event.data, **changes})) == ["data"]


@pytest.mark.parametrize("data", [None, [], "text", b"bytes", 5])
def test_data_of_another_shape_is_refused(data: Any) -> None:
    assert faults(signal().with_data(data)) == ["data"]


def test_data_behind_a_reference_is_not_taken_for_missing() -> None:
    assert faults(signal().with_data(None, dataref="blob:sha256:" + "0" * 64)) == ["dataref"]


@pytest.mark.parametrize("kind", ["com.example.x", "agentflow.nothing.v1", "agentflow.signal.received.v2"])
def test_an_unknown_type_is_refused(kind: str) -> None:
    assert catalogue.of_type(kind) is None
    assert faults(Event(id="1", source="/s", type=kind, data={})) == ["type"]


def test_an_event_from_outside_is_wrapped_and_counts_once() -> None:
    foreign = Event(id="1", source="/s", type="com.example.x", tenant=UUID(int=0), data=b"\xff", time=NOW)

    def wrap(event: Event) -> Event:
        return catalogue.received(event, tenant=TENANT, source_function="api", time=NOW)

    wrapped = wrap(foreign)
    payload = catalogue.parse(json_format.decode(json_format.encode(wrapped)))
    assert isinstance(payload, EventReceived)
    assert json_format.decode_dict(dict(payload.event)) == foreign.with_tenant(TENANT)
    again = Event(id="1", source="/s", type="com.example.x", subject="sent again")
    assert wrap(again).id == wrapped.id
    assert wrap(Event(id="s", source="/1", type="com.example.x")).id != wrapped.id


@pytest.mark.parametrize("kind", ["agentflow.step.completed.v1", "agentflow.anything"])
def test_outsiders_cannot_speak_as_agentflow(kind: str) -> None:
    assert catalogue.reserved(kind)
    with pytest.raises(Invalid, match="reserved"):
        catalogue.received(
            Event(id="1", source="/s", type=kind), tenant=TENANT, source_function="api", time=NOW
        )


def test_whatever_is_accepted_from_outside_can_also_be_sent_on() -> None:
    def nested(depth: int) -> Event:
        return Event(id="1", source="/s", type="x", data=json.loads("[" * depth + "]" * depth))

    def wrap(event: Event) -> Event:
        return catalogue.received(event, tenant=TENANT, source_function="api", time=NOW)

    json_format.encode(wrap(nested(48)))
    with pytest.raises(Invalid) as caught:
        wrap(nested(49))
    assert caught.value.problem.path.startswith("data")


@pytest.mark.parametrize("name", catalogue.CATALOGUE)
def test_a_subject_gives_its_tenant_back(name: str) -> None:
    assert catalogue.tenant_of_subject(catalogue.subject(name, TENANT)) == TENANT
    assert catalogue.tenant_of_subject(catalogue.incoming_subject(TENANT, "orders.new")) == TENANT


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "agentflow",
        f"agentflow.{TENANT}",
        f"agentflow.{TENANT}.work",
        f"other.{TENANT}.work.x",
        "agentflow.acme.work.x",
        f"agentflow.{TENANT.hex}.work.x",
        f"agentflow.{str(TENANT).upper()}.work.x",
    ],
)
def test_a_foreign_subject_has_no_tenant(subject: str) -> None:
    assert catalogue.tenant_of_subject(subject) is None


def test_what_a_later_version_has_added_is_let_through_and_kept() -> None:
    made = example("step.completed")
    assert isinstance(made.data, dict)
    data = {**made.data, "mood": "good", "usage": {**made.data["usage"], "thoughts": 7}}
    event = made.with_data(data)
    assert isinstance(catalogue.parse(event), StepCompleted)
    assert event.data == data
