"""What a run may cost before it starts: at least where it succeeds, as expected, and at most; by task and in all.

At most: the structure (``core.worst``) times the upper bound of a call, which is what would be held for it. Where a
call has no bound of its own the run's limit is the only one, and it is said why, and what would mend it. At least: the
lightest way through (``core.least``) at the least of a call. Expected: what the tenant's runs have come to, per start
that there could have been, times the starts that there may be now; where no run has been seen yet, a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agentflow.core import price as prices
from agentflow.core import worst
from agentflow.core.asking import Length, lengths
from agentflow.core.bound import Bound
from agentflow.core.chat import offered
from agentflow.core.conversation import MAX_BYTES
from agentflow.core.costly import counted, first_values, starts
from agentflow.core.least import least
from agentflow.core.money import (
    TOKENS_FOR_TOOLS,
    TOKENS_PER_MESSAGE,
    by_bytes,
    llm_hold,
    tool_hold,
    tool_price,
)
from agentflow.core.plan import MAX_CALLS, TURN, Plan, Task, part_name
from agentflow.core.price import Price, ToolPrice, Used
from agentflow.core.types import JSON
from agentflow.errors import Problem

BYTES_PER_TOKEN = 4
"""Of a text that nobody has counted: what is typical of English."""

ANY_LENGTH = prices.MILLION * prices.MILLION
"""Tokens: in place of those of a text that is not known, where they cost nothing."""

LONGEST_TOKEN = 128
"""Bytes: no tokenizer that we know of has a longer one. So many bytes are a token at least."""


class Seen(NamedTuple):
    """What ended runs have come to, for one task: how often it could have started, calls, tokens in and out, cost."""

    starts: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micro: int


class Observed(NamedTuple):
    """What a workflow's ended runs have come to: how many they are, and by task. ``version`` None: of all versions."""

    runs: int = 0
    tasks: Mapping[str, Seen] = {}
    version: int | None = None


NOTHING_SEEN = Observed()
NOTHING_DONE: Mapping[str, int] = {}


class Range(NamedTuple):
    """The least, what is expected, and the most; None: nothing but the run's limit bounds it."""

    least: int = 0
    expected: int = 0
    most: int | None = 0

    def plus(self, other: Range) -> Range:
        most = None if self.most is None or other.most is None else self.most + other.most
        return Range(self.least + other.least, self.expected + other.expected, most)


@dataclass(frozen=True, slots=True)
class Line:
    """One task. ``starts`` without retries, ``cost`` in micro-dollars. ``observed``: what is expected has been seen.
    ``free``: why nothing but the run's limit bounds it, with the mend; None where it is bounded."""

    task: str
    kind: str
    use: str
    starts: Range
    input_tokens: Range
    output_tokens: Range
    cost: Range
    observed: bool
    free: Problem | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A whole run. ``structure_micro`` is what the plan may come to by itself (None: it has no bound), ``limit_micro``
    what the run may spend; ``cost.most`` is the smaller one, and ``bounded_by`` says which."""

    lines: tuple[Line, ...]
    cost: Range
    input_tokens: Range
    output_tokens: Range
    structure_micro: int | None
    limit_micro: int
    bounded_by: str
    runs_observed: int
    version_observed: int | None

    @property
    def free(self) -> list[Problem]:
        """What has no bound but the run's limit."""
        return [line.free for line in self.lines if line.free is not None]


@dataclass(frozen=True, slots=True)
class Tariff:
    """What things cost the run: models by alias, tools by name as the tenant was told, and how long a request a model
    takes, by alias, where somebody knows: what is expected of a call is not more. The most does not rely on it, as no
    hold does: a server may take more than is known of it, and bill that."""

    models: Mapping[str, Price]
    tools: Mapping[str, ToolPrice]
    windows: Mapping[str, int | None]

    def tool(self, plan: Plan, task: Task) -> ToolPrice:
        return self.tools.get(task.use) or tool_price(None, plan, task)


class _Call(NamedTuple):
    """One start of a task: cost, tokens in and out; at least, typically and at most (None: no bound)."""

    cost: Range = Range()
    given: Range = Range()
    said: Range = Range()
    free: Problem | None = None


def estimate(
    plan: Plan,
    tariff: Tariff,
    given: Mapping[str, JSON],
    limit_micro: int,
    limit_name: str = "limits.usd",
    observed: Observed = NOTHING_SEEN,
) -> Estimate:
    """The estimate of a run with these inputs (all that the plan declares), which may spend so much."""
    values = first_values(plan, given)
    bounds, calls = starts(plan, tariff.tools), _each_call(plan, tariff, values)
    lines = tuple(
        _line(plan, plan.tasks[name], bound, calls[name], values, observed) for name, bound in bounds.items()
    )
    structure = _structure(plan, calls, {name: bound.at(values) for name, bound in bounds.items()}, values)
    fewest = least(plan, lambda task: calls[task.name].cost.least if task.name in calls else 0, values)
    most = limit_micro if structure is None else min(structure, limit_micro)
    expected = sum(line.cost.expected for line in lines)
    asked = said = Range()
    for line in lines:
        asked, said = asked.plus(line.input_tokens), said.plus(line.output_tokens)
    return Estimate(
        lines,
        Range(min(fewest, most), min(max(expected, fewest), most), most),
        asked,
        said,
        structure,
        limit_micro,
        "plan" if structure is not None and structure <= limit_micro else limit_name,
        observed.runs,
        observed.version,
    )


def at_most(
    plan: Plan, tariff: Tariff, given: Mapping[str, JSON], done: Mapping[str, int] = NOTHING_DONE
) -> tuple[int | None, list[Problem]]:
    """What the plan may come to by itself, None where it has no bound; and what has none. ``done``: by task the starts
    that are paid for already, where the run goes on from another one."""
    values = first_values(plan, given)
    bounds, calls = starts(plan, tariff.tools), _each_call(plan, tariff, values)
    if not counted(plan, len(bounds)):
        done = NOTHING_DONE
    left = {name: max(0, bound.at(values) - done.get(name, 0)) for name, bound in bounds.items()}
    whole = _structure(plan, calls, left, values)
    if whole is None:
        return None, [call.free for name, call in calls.items() if call.free is not None and left[name]]
    return min(whole, sum(times * (calls[name].cost.most or 0) for name, times in left.items())) if done else whole, []


def expected_micro(
    plan: Plan, tariff: Tariff, given: Mapping[str, JSON], limit_micro: int, observed: Observed
) -> int:
    """What ``estimate`` expects a run to cost; at once where all of it has been seen."""
    bounds = starts(plan, tariff.tools)
    if observed.runs and all(name in observed.tasks and observed.tasks[name].starts for name in bounds):
        values = first_values(plan, given)
        seen = [(observed.tasks[name], bound.at(values)) for name, bound in bounds.items()]
        return max(0, min(sum(round(each.cost_micro * most / each.starts) for each, most in seen), limit_micro))
    return estimate(plan, tariff, given, limit_micro, observed=observed).cost.expected


def _each_call(plan: Plan, tariff: Tariff, values: Mapping[str, JSON]) -> dict[str, _Call]:
    """By costly task what one start of it may come to."""
    known = lengths(plan, values, {alias: by_bytes(price) for alias, price in tariff.models.items()})
    return {
        name: _call(plan, plan.tasks[name], tariff, known.get(name, Length())) for name in starts(plan, tariff.tools)
    }


def _structure(
    plan: Plan, calls: Mapping[str, _Call], times: Mapping[str, int], values: Mapping[str, JSON]
) -> int | None:
    """What the plan may come to; None where a task that may start (so many ``times``) has no bound."""
    weights = {name: call.cost.most for name, call in calls.items()}
    if any(weight is None and times[name] for name, weight in weights.items()):
        return None
    return worst.worst(plan, lambda task: weights.get(task.name) or 0).at(values)


def _line(
    plan: Plan, task: Task, bound: Bound, call: _Call, values: Mapping[str, JSON], observed: Observed
) -> Line:
    most = bound.at(values)
    fewest = least(plan, lambda each: int(each.name == task.name), values)
    seen = observed.tasks.get(task.name)
    cost, given, said = (_times(each, fewest, most) for each in (call.cost, call.given, call.said))
    typical = fewest if bound.limited else -(-(fewest + most) // 2)
    if observed.runs and seen is not None and (seen.starts or not most):
        share = (lambda amount: round(amount * most / seen.starts)) if seen.starts else lambda amount: 0
        expected = [share(each) for each in (seen.cost_micro, seen.input_tokens, seen.output_tokens)]
    else:
        seen = None
        expected = [each.expected * typical for each in (call.cost, call.given, call.said)]
    cost, given, said = (
        _between(each, known) for each, known in zip((cost, given, said), expected, strict=True)
    )
    began = Range(min(fewest, most), min(max(typical, fewest), most), most)
    return Line(
        task.name, task.kind, task.agent.model if task.agent else task.use, began, given, said, cost, seen is not None,
        call.free if most else None,
    )  # fmt: skip


def _times(each: Range, fewest: int, most: int) -> Range:
    return Range(each.least * fewest, 0, 0 if not most else None if each.most is None else each.most * most)


def _between(each: Range, expected: int) -> Range:
    """What is expected is not less than the least and not more than the most."""
    expected = max(expected, each.least)
    return each._replace(expected=expected if each.most is None else min(expected, each.most))


# -- one start of a task ------------------------------------------------------------------------------------


def _call(plan: Plan, task: Task, tariff: Tariff, length: Length) -> _Call:
    return _CALLS[task.kind](plan, task, tariff, length)


def _tool(plan: Plan, task: Task, tariff: Tariff, length: Length) -> _Call:
    price = tariff.tool(plan, task)
    fewest, most = prices.tool_micro(price, 0), tool_hold(price, task)
    return _Call(Range(fewest, -(-(fewest + most) // 2), most * task.retry.max))


def _workflow(plan: Plan, task: Task, tariff: Tariff, length: Length) -> _Call:
    budget = task.price_cap_micro or 0
    return _Call(Range(0, budget // 2, budget * task.retry.max), Range(0, 0, None), Range(0, 0, None))


def _llm(plan: Plan, task: Task, tariff: Tariff, length: Length) -> _Call:
    price = tariff.models[task.use]
    bounds = [_most(task, alias, tariff, length) for alias in task.aliases]
    free = next((why for _, why in bounds if why is not None), None)
    most = None if free is not None else max(bound for bound, _ in bounds if bound is not None)
    fewest, asked = _fewest(length), length.most_tokens
    typical_in, typical_out = max(fewest, _taken(_typical(length), tariff, task.use)), -(-task.max_tokens // 2)
    cost = Range(
        min(_cheapest(tariff.models[alias], fewest, 1) for alias in task.aliases),
        prices.llm_micro(price, Used(typical_in, typical_out)),
        None if most is None else most * task.retry.max,
    )
    times = task.retry.max
    given = Range(fewest, typical_in, None if asked is None else asked * times)
    return _Call(cost, given, Range(1, typical_out, task.max_tokens * times), free)


def _taken(tokens: int, tariff: Tariff, alias: str) -> int:
    """So many tokens, or as many as the model is known to take."""
    window = tariff.windows.get(alias)
    return tokens if window is None else min(tokens, window)


def _most(task: Task, alias: str, tariff: Tariff, length: Length) -> tuple[int | None, Problem | None]:
    """The most that one attempt costs, which is what may be held for it: by its own length, or as the task says."""
    price, tokens = tariff.models[alias], length.most_tokens
    if tokens is None and prices.input_is_free(price):
        tokens = ANY_LENGTH
    bounds = [] if tokens is None else [llm_hold(price, task, tokens)]
    if task.price_cap_micro is not None:
        bounds.append(task.price_cap_micro)
    if bounds:
        return min(bounds), None
    names = ", ".join(sorted(length.unknown))
    said = f"may ask {alias} with a text of any length: {names} is not known before the run"
    mend = f"say with tasks.{task.name}.usd what a call may cost"
    return None, Problem(f"tasks.{task.name}", said, mend, "no_bound", "warning")


def _agent(plan: Plan, task: Task, tariff: Tariff, length: Length) -> _Call:
    assert task.agent is not None
    inner = [part for part in plan.tasks.values() if part.part_of == task.name]
    turn = plan.tasks[part_name(task.name, TURN)]
    price, tokens = tariff.models[turn.use], _conversation(task)
    each = max(llm_hold(tariff.models[alias], turn, tokens) for alias in turn.aliases)
    parts = [part for part in inner if part.kind == "tool"]
    dearest = max((tool_hold(tariff.tool(plan, part), part) for part in parts), default=0)
    most = task.retry.max * (task.turns * each + (task.turns - 1) * MAX_CALLS * dearest)
    if task.price_cap_micro is not None:
        most = min(most, task.price_cap_micro)
    fewest, typical = _fewest(length), _typical(length)
    turns = 1 if not parts else -(-(task.turns + 1) // 2)
    said = -(-turn.max_tokens // 2)
    known = sum(_taken(typical + done * said, tariff, turn.use) for done in range(turns))
    expected = turns * prices.llm_micro(price, Used(known // turns, said)) + (turns - 1) * dearest
    times = task.retry.max * task.turns
    return _Call(
        Range(min(_cheapest(tariff.models[alias], fewest, 1) for alias in turn.aliases), min(expected, most), most),
        Range(fewest, known, tokens * times),
        Range(1, turns * said, turn.max_tokens * times),
    )


def _conversation(task: Task) -> int:
    """The most tokens that a turn's request has: of a conversation as long as one may be, and what it is offered.

    In the form that is counted a byte may become three (an escaped character), and a separator two.
    """
    messages = 2 + task.turns * (MAX_CALLS + 3)
    shown: Any = offered(task)
    form = TOKENS_FOR_TOOLS + 3 * sum(len(str(each).encode()) for each in shown)
    return 3 * MAX_BYTES + form + TOKENS_PER_MESSAGE * (messages + 1)


def _cheapest(price: Price, given: int, said: int) -> int:
    """The least that a call of so many tokens costs: all of them read from a cache, where that is cheaper."""
    plain = prices.llm_micro(price, Used(given, said))
    return min(plain, prices.llm_micro(price, Used(given, said, cache_read=given)))


def _fewest(length: Length) -> int:
    return max(1, length.least_bytes // LONGEST_TOKEN)


def _typical(length: Length) -> int:
    return -(-length.typical_bytes // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE


_CALLS: Mapping[str, Callable[[Plan, Task, Tariff, Length], _Call]] = {
    "llm": _llm,
    "tool": _tool,
    "agent": _agent,
    "workflow": _workflow,
}
