"""Log lines: JSON, with the ids that were bound, and without anything secret."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from agentflow.observe import logs

KEY = "af_" + "0" * 32 + "_abc123_" + "s" * 43


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("debug", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:], root.level = before[0], before[1]


def read(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_the_bound_ids_and_they_end_with_the_block(lines: io.StringIO) -> None:
    log = logs.logger("dispatch")
    with logs.bound(tenant="t", run="r", step=3, event_id="r:3.1", trace_id="f" * 32):
        log.info("step started", task="classify")
    log.warning("idle")
    inside, outside = read(lines)
    assert inside["message"] == "step started"
    assert inside["level"] == "info"
    assert str(inside["at"]).endswith("Z")
    ids = {
        name: inside[name] for name in ("tenant", "run", "step", "event_id", "trace_id", "function", "task")
    }
    assert ids == {
        "tenant": "t", "run": "r", "step": "3", "event_id": "r:3.1", "trace_id": "f" * 32,
        "function": "dispatch", "task": "classify",
    }  # fmt: skip
    assert "run" not in outside


def test_only_ids_can_be_bound() -> None:
    with pytest.raises(ValueError, match="output"), logs.bound(output="x"):
        pass


def test_keys_tokens_and_passwords_never_appear(lines: io.StringIO) -> None:
    logs.logger("api").info(
        f"got {KEY}",
        url="postgresql://agentflow_api:hunter2@db/agentflow",
        header="Bearer eyJhbGciOi.x.y",
        nested={"deep": [f"sk-proj-{'x' * 20}"]},
    )
    text = lines.getvalue()
    for secret in ("s" * 43, "hunter2", "eyJhbGciOi", "sk-proj"):
        assert secret not in text
    assert "agentflow_api" in text


@pytest.mark.parametrize(
    "name", ["input", "output", "data", "payload", "messages", "authorization", "headers"]
)
def test_payloads_are_withheld_wherever_they_stand(lines: io.StringIO, name: str) -> None:
    logs.logger("api").info("x", **{name: "private matter"}, step={name: {"a": "private matter"}})
    assert "private matter" not in lines.getvalue()


def test_a_fault_says_where_but_not_what_the_row_held(lines: io.StringIO) -> None:
    def broken() -> None:
        raise RuntimeError(f"duplicate key, Bearer {KEY}\nDETAIL: Failing row contains (private matter)")

    try:
        broken()
    except RuntimeError:
        logs.logger("api").exception("request failed")
    (line,) = read(lines)
    fault = line["fault"]
    assert isinstance(fault, dict)
    assert fault["type"] == "RuntimeError"
    assert "duplicate key" in fault["message"]
    assert "broken" in fault["where"][-1]
    assert "private matter" not in lines.getvalue()
    assert "s" * 43 not in lines.getvalue()


def test_library_lines_come_out_in_the_same_form(lines: io.StringIO) -> None:
    logging.getLogger("nats.aio").warning("reconnecting to %s", "nats://u:hunter2@host")
    (line,) = read(lines)
    assert line["logger"] == "nats.aio"
    assert line["level"] == "warning"
    assert "hunter2" not in lines.getvalue()


def test_long_texts_are_cut(lines: io.StringIO) -> None:
    logs.logger("api").info("x", reason="y" * 100_000)
    assert len(lines.getvalue()) < 5_000


def test_levels_below_the_threshold_are_silent_and_unknown_ones_refused(lines: io.StringIO) -> None:
    logs.configure("warning", lines)
    logs.logger("api").info("quiet")
    assert lines.getvalue() == ""
    with pytest.raises(ValueError, match="loud"):
        logs.configure("loud")
