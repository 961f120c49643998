"""Agents: a model works in turns, with tools, until it answers.

An agent's step is carried out by inner steps (``core.inner``): each turn of its model is one, of the task
``NAME--turn``, and so is each call that it makes there, of ``NAME--TOOL``. The calls of one turn run at once; when all
have ended the model is told what they came to, and its next turn begins. In its last turn it is offered no tools.

``PlanState.agents`` holds ``by``: by the agent's step, its task, the turn it is at, what has been said (and how many
bytes that is), the inner steps that run with the place of their call (the turn itself: -1), and the results of calls
by their place; ``of``: by inner step, the agent's; ``bytes``: of all conversations together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from immutables import Map

from agentflow.core import chat, conversation
from agentflow.core.inner import Inner, StepEvent
from agentflow.core.moves import Completed, Failed, PlanState, Start
from agentflow.core.plan import ANSWER, MAX_CALLS, TURN, Plan, Task, part_name
from agentflow.core.prompt import json_text
from agentflow.core.types import JSON

MAX_ALL_BYTES = 4 * 1024 * 1024
"""Most bytes that all agents at work in a run have said and heard."""

ENDS_ALL = frozenset({"budget_exhausted"})
"""Failures of a call that the model can do nothing about."""

Entry = dict[str, Any]


def around(state: PlanState | None, step: int) -> int | None:
    """The step of the agent that an inner step belongs to."""
    found = state.agents["of"].get(str(step)) if state is not None and state.agents else None
    return None if found is None else int(found)


def asked(plan: Plan, state: PlanState | None, step: int) -> chat.Asked | None:
    """What the turn that is this step asks of the model; None when nobody waits for it any more."""
    agent = around(state, step)
    if agent is None or state is None or state.agents is None:
        return None
    entry = state.agents["by"][str(agent)]
    task = plan.tasks[entry["task"]]
    if _is_plain(task, entry["turn"]):
        return chat.Asked(entry["said"], [], chat.output_schema(task))
    return chat.Asked(entry["said"], chat.offered(task), None)


def _is_plain(task: Task, turn: int) -> bool:
    """Whether no tools are offered in a turn, and the reply is the answer itself."""
    assert task.agent is not None
    return turn == task.turns or not task.agent.tools


class Agents:
    """The agents at work, while one event moves the run."""

    kind = "agent"

    def __init__(self, run: Inner, known: Mapping[str, Any]) -> None:
        self.run = run
        self.plan = run.plan
        self.by: Map[str, Entry] = Map(known.get("by", {}))
        self.of: Map[str, int] = Map(known.get("of", {}))
        self.bytes: int = known.get("bytes", 0)
        self.changed: dict[str, JSON] = {}  # by the agent's step; None: it is gone

    @property
    def moved(self) -> bool:
        return bool(self.changed)

    def stored(self) -> Mapping[str, JSON] | None:
        return {"by": self.by, "of": self.of, "bytes": self.bytes} if self.by else None

    def changes(self) -> JSON:
        return self.changed

    def owns(self, step: int) -> bool:
        return str(step) in self.of

    def done(self, event: Completed, place: str, task: Task, local: dict[str, JSON]) -> None:
        """Not of interest here."""

    def begin(self, start: Start) -> None:
        task = self.plan.tasks[start.task]
        entry: Entry = {"task": task.name, "turn": 0, "said": [], "bytes": 0, "runs": {}, "heard": []}
        self._put(start.step, entry)
        self._ask(start.step, chat.chat(task, start.input))

    def halt(self, step: int) -> list[int]:
        entry = self.by.get(str(step))
        return [] if entry is None else self._forget(step, entry)

    def halt_all(self) -> list[int]:
        return [inner for step in sorted(map(int, self.by)) for inner in self.halt(step)]

    def take(self, event: StepEvent) -> None:
        inner, step = str(event.step), self.of[str(event.step)]
        entry = self.by[str(step)]
        place = entry["runs"][inner]
        self.of = self.of.delete(inner)
        runs = {key: each for key, each in entry["runs"].items() if key != inner}
        self._put(step, {**entry, "runs": runs})
        if place < 0:
            self._replied(step, event)
        else:
            self._called(step, place, event)

    # -- the model's turns ---------------------------------------------------------------------------------

    def _ask(self, step: int, told: Sequence[chat.Message]) -> None:
        """Begin the next turn, with this to be told first."""
        entry = self.by[str(step)]
        task, turn = self.plan.tasks[entry["task"]], entry["turn"] + 1
        if turn == task.turns > 1 and not _is_plain(task, turn - 1):
            told = [*told, {"role": "user", "content": "Answer now: there are no further turns, and no tools."}]
        self._put(step, {**entry, "turn": turn, "heard": []})
        if self._say(step, told) and self._has_steps(step, 1):
            given = {"agent": step, "turn": turn, "messages": list(told)}
            self._start(step, part_name(task.name, TURN), given, -1)

    def _replied(self, step: int, event: StepEvent) -> None:
        """A turn has ended."""
        entry = self.by[str(step)]
        task = self.plan.tasks[entry["task"]]
        if not isinstance(event, Completed):
            code, message = _fault(event)
            if code == "bad_result" and entry["turn"] == task.turns:
                self._give_up(step, message)
            else:
                self._end(step, None, code, f"turn {entry['turn']}: {message}")
        elif _is_plain(task, entry["turn"]):
            self._answered(step, event.result)
        else:
            self._worked(step, event.result)

    def _answered(self, step: int, result: dict[str, JSON]) -> None:
        """The reply is the answer: it fits, or the model is told why it does not."""
        entry = self.by[str(step)]
        task = self.plan.tasks[entry["task"]]
        try:
            answer = conversation.fit(result, task.out, ANSWER, exactly=False) if task.out else result
        except conversation.Unfit as fault:
            if entry["turn"] >= task.turns:
                self._give_up(step, str(fault))
            elif self._say(step, [conversation.reply(entry["turn"], json_text(result), ())]):
                self._ask(step, [{"role": "user", "content": str(fault)}])
            return
        self._end(step, answer)

    def _worked(self, step: int, said: dict[str, JSON]) -> None:
        """The reply of a turn in which there were tools: calls, or an answer."""
        entry = self.by[str(step)]
        task, turn = self.plan.tasks[entry["task"]], entry["turn"]
        calls = said["calls"][: MAX_CALLS + 1]
        if not calls and not task.out:
            self._end(step, {"text": said["text"]})
            return
        answer, heard = self._answer(task, calls)
        if answer is not None:
            self._end(step, answer)
        elif self._say(step, [conversation.reply(turn, said["text"], calls)]):
            if calls:
                self._call(step, calls, heard)
            else:
                self._ask(step, [{"role": "user", "content": f"Give your answer by calling the tool {ANSWER}."}])

    def _answer(self, task: Task, calls: Sequence[Mapping[str, JSON]]) -> tuple[dict[str, JSON] | None, dict[int, str]]:
        """The answer that is among the calls; else, by place, what is wrong with those that were to be one."""
        faults = {}
        for place, call in enumerate(calls[:MAX_CALLS]):
            if call["name"] == ANSWER and task.out:
                try:
                    return _arguments(call, task.out, exactly=False), {}
                except conversation.Unfit as fault:
                    faults[place] = conversation.error("bad_answer", str(fault))
        return None, faults

    # -- the calls of a turn -------------------------------------------------------------------------------

    def _call(self, step: int, calls: Sequence[Mapping[str, JSON]], heard: Mapping[int, str]) -> None:
        """Start the calls that can be made; of the others the model is told why not."""
        entry = self.by[str(step)]
        said: list[str | None] = [None] * len(calls)
        starts = []
        for place, call in enumerate(calls):
            try:
                if place in heard or place == MAX_CALLS:
                    said[place] = heard.get(place) or conversation.too_many()
                else:
                    starts.append((place, *self._checked(self.plan.tasks[entry["task"]], call)))
            except conversation.Unfit as fault:
                said[place] = str(fault)
        self._put(step, {**entry, "heard": said})
        if not self._has_steps(step, len(starts)):
            return
        for place, name, given in starts:
            self._start(step, part_name(entry["task"], name), given, place)
        if not starts:
            self._tell(step)

    def _checked(self, task: Task, call: Mapping[str, JSON]) -> tuple[str, dict[str, JSON]]:
        """The tool that is called and what it is given; ``Unfit`` says what the model is told in place of a result."""
        assert task.agent is not None
        name = call["name"]
        if name not in task.agent.tools:
            known = [*task.agent.tools, *([ANSWER] if task.out else [])]
            raise conversation.Unfit(conversation.refused(name, known))
        try:
            return name, _arguments(call, task.agent.tools[name].inputs or {}, exactly=True)
        except conversation.Unfit as fault:
            raise conversation.Unfit(conversation.error("bad_arguments", str(fault))) from None

    def _called(self, step: int, place: int, event: StepEvent) -> None:
        """A call has ended."""
        if isinstance(event, Completed):
            said = conversation.result(event.result)
        else:
            code, message = _fault(event)
            if code in ENDS_ALL:
                self._end(step, None, code, message)
                return
            said = conversation.error(code, message)
        entry = self.by[str(step)]
        heard = [*entry["heard"][:place], said, *entry["heard"][place + 1 :]]
        self._put(step, {**entry, "heard": heard})
        if not entry["runs"]:
            self._tell(step)

    def _tell(self, step: int) -> None:
        """All calls have ended."""
        entry = self.by[str(step)]
        self._ask(step, conversation.results(entry["turn"], entry["heard"]))

    # -- its state -----------------------------------------------------------------------------------------

    def _start(self, step: int, task: str, given: dict[str, JSON], place: int) -> None:
        inner = self.run.start(task, given)
        entry = self.by[str(step)]
        self.of = self.of.set(str(inner), step)
        self._put(step, {**entry, "runs": {**entry["runs"], str(inner): place}})

    def _say(self, step: int, messages: Sequence[chat.Message]) -> bool:
        """Add to the conversation; False when the step has ended, because that is too much."""
        entry = self.by[str(step)]
        added = conversation.length(messages)
        self.bytes += added
        entry = {**entry, "said": [*entry["said"], *messages], "bytes": entry["bytes"] + added}
        self._put(step, entry, messages)
        if entry["bytes"] <= conversation.MAX_BYTES and self.bytes <= MAX_ALL_BYTES:
            return True
        said = f"the conversation is longer than {conversation.MAX_BYTES:,} bytes"
        if entry["bytes"] <= conversation.MAX_BYTES:
            said = f"the conversations of all agents at work are longer than {MAX_ALL_BYTES:,} bytes"
        message = f"turn {entry['turn']}: {said}; have tools return less, or do less in one task"
        self._end(step, None, "conversation_too_long", message)
        return False

    def _has_steps(self, step: int, count: int) -> bool:
        """Whether the run may start so many more steps; False when the agent's has ended, because it may not."""
        limit, so_far = self.plan.limits.steps, self.run.state.steps
        if so_far + count <= limit:
            return True
        message = f"limits.steps: {count} more would be {so_far + count}, but {limit} are allowed"
        self._end(step, None, "too_many_steps", message)
        return False

    def _give_up(self, step: int, fault: str) -> None:
        task = self.plan.tasks[self.by[str(step)]["task"]]
        self._end(step, None, "turns", f"no answer in {task.turns} turns (tasks.{task.name}.turns): {fault}")

    def _end(self, step: int, result: dict[str, JSON] | None, code: str = "", message: str = "") -> None:
        for inner in self._forget(step, self.by[str(step)]):
            self.run.halt(inner)
        self.run.end(step, result, code, message)

    def _forget(self, step: int, entry: Entry) -> list[int]:
        """Drop an agent's state; the inner steps that still run."""
        for inner in entry["runs"]:
            self.of = self.of.delete(inner)
        self.by = self.by.delete(str(step))
        self.bytes -= entry["bytes"]
        self.changed[str(step)] = None
        return sorted(map(int, entry["runs"]))

    def _put(self, step: int, entry: Entry, added: Sequence[chat.Message] = ()) -> None:
        key = str(step)
        self.by = self.by.set(key, entry)
        said = [*(self.changed.get(key) or {}).get("said", ()), *added]
        self.changed[key] = {**{name: entry[name] for name in ("turn", "runs", "heard")}, "said": said}


def _fault(event: StepEvent) -> tuple[str, str]:
    return (event.code, event.message) if isinstance(event, Failed) else ("timeout", "")


def _arguments(call: Mapping[str, JSON], fields: Mapping[str, Any], *, exactly: bool) -> dict[str, JSON]:
    if "fault" in call:
        raise conversation.Unfit(call["fault"])
    return conversation.fit(call["arguments"], fields, "arguments", exactly=exactly)
