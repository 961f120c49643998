"""Calling tools: built in, and shipped with a workflow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from agentflow.config import Settings
from agentflow.core.builtin import BUILTIN_TOOLS
from agentflow.core.plan import ToolSpec
from agentflow.errors import Rejected, RetryLater, UnknownOutcome
from agentflow.sandbox import Code, Job, Outcome
from agentflow.tools import ToolCall, Tools
from agentflow.tools.builtin import BUILTINS

ONE = UUID(int=1)


def spec(code: str, **changes: Any) -> ToolSpec:
    given: dict[str, Any] = {
        "name": "mine", "kind": "python", "code": code, "timeout_ms": None, "memory_bytes": 128 << 20,
        "cpu": 1.0, "output_bytes": 4096, "price_micro": 0,
    }  # fmt: skip
    return ToolSpec(**(given | changes))


def calling(tool: str, spec: ToolSpec | None = None, **changes: Any) -> ToolCall:
    given: dict[str, Any] = {
        "tenant": ONE, "run": ONE, "step": 1, "attempt": 1, "tool": tool, "spec": spec, "input": {},
        "timeout_s": 20.0,
    }  # fmt: skip
    return ToolCall(**(given | changes))


class Recorder:
    """A sandbox that remembers its jobs and answers as told."""

    name = "recorder"
    isolates = missing = ""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.jobs: list[Job] = []
        self.started = self.closed = 0

    async def start(self) -> None:
        self.started += 1
        await asyncio.sleep(0.01)

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        return self.outcome

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    tools = Tools.from_settings(Settings(sandbox="process"))
    yield tools
    await tools.close()


def no_sandbox() -> Any:
    raise AssertionError("a built-in tool needs no sandbox")


async def test_echo_gives_back_its_very_input_without_a_sandbox() -> None:
    given = {"a": [1, {"b": None}]}
    assert await Tools(no_sandbox).call(calling("std.echo", input=given)) is given


async def test_echo_costs_next_to_nothing() -> None:
    tools, call = Tools(no_sandbox), calling("std.echo", input={"a": 1})
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(1000):
            await tools.call(call)
        best = min(best, time.perf_counter() - began)
    assert best / 1000 < 3e-6


async def test_fail_fails_as_it_is_told() -> None:
    tools = Tools(no_sandbox)
    with pytest.raises(Rejected, match="asked to fail") as caught:
        await tools.call(calling("std.fail"))
    assert caught.value.code == "failed"
    told = {"code": "busy", "message": "later", "retryable": True, "after_ms": 1500}
    with pytest.raises(RetryLater, match="later") as passing:
        await tools.call(calling("std.fail", input=told))
    assert (passing.value.code, passing.value.after) == ("busy", 1.5)


async def test_fail_can_fail_the_first_attempts_only() -> None:
    tools = Tools(no_sandbox)
    for attempt in (1, 2):
        with pytest.raises(RetryLater):
            await tools.call(calling("std.fail", input={"retryable": True, "times": 2}, attempt=attempt))
    assert await tools.call(calling("std.fail", input={"times": 2}, attempt=3)) == {"attempt": 3}


@pytest.mark.parametrize(
    ("given", "path"), [({"code": 7}, "in.code"), ({"times": True}, "in.times"), ({"when": 1}, "in")]
)
async def test_fail_says_what_it_does_not_understand(given: dict[str, Any], path: str) -> None:
    with pytest.raises(Rejected) as caught:
        await Tools(no_sandbox).call(calling("std.fail", input=given))
    assert (caught.value.code, caught.value.problem.path) == ("bad_input", path)


@pytest.mark.parametrize(
    ("expression", "value"),
    [("17 * 23", 391), ("double(7) / 2.0", 3.5), ("[3, 1].map(x, x * 2)", [6, 2]), ("'a' + 'b'", "ab")],
)
async def test_calc_works_out_an_expression(expression: str, value: Any) -> None:
    assert await Tools(no_sandbox).call(calling("std.calc", input={"expression": expression})) == {"value": value}


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"expression": "1 / 0"}, "bad_expression", "divi"),
        ({"expression": "2 * 3.5"}, "bad_expression", "CEL never mixes int and double"),
        ({"expression": "price * 2"}, "bad_expression", "unknown name or function 'price'"),
        ({"expression": "['a']" + ".map(x, x + x)" * 30}, "bad_expression", "may grow 1,073,741,824 times"),
        ({"expression": "1", "more": "2"}, "bad_input", "unknown input 'more'"),
        ({"expression": 1}, "bad_input", "must be str"),
    ],
)
async def test_calc_says_what_it_cannot_work_out(given: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(Rejected, match=said) as caught:
        await Tools(no_sandbox).call(calling("std.calc", input=given))
    assert caught.value.code == code


def test_the_compiler_and_the_runner_know_the_same_built_in_tools() -> None:
    assert set(BUILTINS) == set(BUILTIN_TOOLS)


async def test_a_tool_of_the_workflow_gets_its_input_and_its_files(tools: Tools) -> None:
    code = "def run(log, limit):\n return {'lines': open(log).read().splitlines()[:limit]}"
    ref = "blob:sha256:" + "0" * 64
    call = calling("mine", spec(code), input={"log": ref, "limit": 2}, files={ref: b"one\ntwo\nthree\n"})
    assert await tools.call(call) == {"lines": ["one", "two"]}


async def test_a_tool_that_fails_is_rejected_with_its_message(tools: Tools) -> None:
    code = "def run(n):\n    return {'x': 1 // n}\n"
    with pytest.raises(Rejected, match=r"ZeroDivisionError: .*tool\.py line 2: return") as caught:
        await tools.call(calling("mine", spec(code), input={"n": 0}))
    assert caught.value.code == "tool_error"


async def test_a_result_over_the_tools_limit_is_refused_with_the_mend(tools: Tools) -> None:
    with pytest.raises(Rejected, match="the limit is 4096: return less, or raise the tool's `output`"):
        await tools.call(calling("mine", spec("def run(): return {'x': 'y' * 5000}")))


async def test_time_is_up_when_the_tools_or_the_tasks_is(tools: Tools) -> None:
    code = "import time\ndef run(): time.sleep(30)"
    for call in (
        calling("mine", spec(code, timeout_ms=200)),
        calling("mine", spec(code, timeout_ms=20_000), timeout_s=0.2),
        calling("mine", spec(code), timeout_s=0.2),
    ):
        with pytest.raises(RetryLater, match=r"within 0\.2 s") as caught:
            await tools.call(call)
        assert caught.value.code == "timeout"


async def test_the_profile_is_the_tools_own() -> None:
    recorder = Recorder(Outcome(True, b"{}"))
    declared = spec("x", memory_bytes=64 << 20, cpu=0.5, output_bytes=777, timeout_ms=1500)
    await Tools(lambda: recorder).call(calling("mine", declared, timeout_s=60.0))
    (job,) = recorder.jobs
    profile = job.profile
    assert (profile.memory_bytes, profile.cpu, profile.output_bytes, profile.wall_s) == (64 << 20, 0.5, 777, 1.5)
    assert profile.network == ()


@pytest.mark.parametrize(
    ("code", "retried"),
    [
        ("tool_error", False),
        ("memory", False),
        ("output_too_large", False),
        ("bad_output", False),
        ("timeout", True),
        ("sandbox_crashed", True),
        ("sandbox_unavailable", True),
    ],
)
async def test_faults_of_the_tool_last_and_faults_of_the_machine_pass(code: Code, retried: bool) -> None:
    recorder = Recorder(Outcome(False, error_code=code, message="why"))
    with pytest.raises(RetryLater if retried else Rejected, match="why") as caught:
        await Tools(lambda: recorder).call(calling("mine", spec("x")))
    assert caught.value.code == code


@pytest.mark.parametrize("code", ["timeout", "sandbox_crashed", "memory", "output_too_large"])
async def test_a_call_that_may_be_made_once_and_was_ended_has_an_unknown_outcome(code: Code) -> None:
    outcome = Outcome(False, error_code=code, message="why", known=False)
    with pytest.raises(UnknownOutcome, match=f"{code}: why") as caught:
        await Tools(lambda: Recorder(outcome)).call(calling("mine", spec("x", effects="once")))
    assert caught.value.code == "outcome_unknown"
    known = Outcome(False, error_code=code, message="why")
    for made, effects in ((known, "once"), (outcome, "idempotent"), (outcome, "")):
        with pytest.raises((RetryLater, Rejected)):
            await Tools(lambda made=made: Recorder(made)).call(calling("mine", spec("x", effects=effects)))


async def test_a_tool_that_nobody_declares_is_named() -> None:
    with pytest.raises(Rejected, match=r"no tool std\.nothing .*std\.echo, std\.fail") as caught:
        await Tools(no_sandbox).call(calling("std.nothing"))
    assert caught.value.code == "unknown_tool"


async def test_a_kind_that_is_not_there_yet_is_named() -> None:
    with pytest.raises(Rejected, match=r"tools\.mine\.kind: tools of kind container are not yet available"):
        await Tools(no_sandbox).call(calling("mine", spec("x", kind="container")))


async def test_calls_at_once_share_one_sandbox_and_it_is_closed() -> None:
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder(Outcome(True, b"{}")))
        return made[-1]

    tools = Tools(make)
    await asyncio.gather(*(tools.call(calling("mine", spec("x"))) for _ in range(5)))
    await tools.close()
    await tools.close()
    assert [(recorder.started, recorder.closed) for recorder in made] == [(1, 1)]


async def test_a_sandbox_that_cannot_be_had_is_asked_for_again_with_the_next_call() -> None:
    recorder = Recorder(Outcome(True, b'{"fine":true}'))
    answers: list[Any] = [
        Rejected("no engine", code="sandbox_unavailable", mend="start it"),
        Rejected("unknown driver", code="bad_setting"),
        recorder,
    ]

    def make() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    tools = Tools(make)
    with pytest.raises(RetryLater, match="start it"):
        await tools.call(calling("mine", spec("x")))
    with pytest.raises(Rejected, match="unknown driver"):
        await tools.call(calling("mine", spec("x")))
    assert await tools.call(calling("mine", spec("x"))) == {"fine": True}


async def test_a_call_that_is_cancelled_does_not_take_the_sandbox_from_the_others() -> None:
    recorder = Recorder(Outcome(True, b"{}"))
    tools = Tools(lambda: recorder)
    first = asyncio.ensure_future(tools.call(calling("mine", spec("x"))))
    second = asyncio.ensure_future(tools.call(calling("mine", spec("x"))))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == {}
    await tools.close()
