"""The workload's workflows, and what each may come to whatever befalls the system meanwhile.

Every prompt names its call as ``[[token/task/n]]``; tokens are unique per run and carry their tenant's mark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

JSON = Any
MICRO_ECHO = 100
MODEL_RETRY = {"max": 6, "backoff": "50ms"}
EFFECT = """
import json, urllib.request
def run(url, key):
    asked = urllib.request.Request(url, json.dumps({'key': key}).encode(), {'Content-Type': 'application/json'})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)
"""
ONCE = """
import json, os, urllib.request
def run(url, token):
    asked = {'key': '[[' + os.environ['AGENTFLOW_IDEMPOTENCY_KEY'] + ']]'}
    asked = urllib.request.Request(url, json.dumps(asked).encode(), {'Content-Type': 'application/json'})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)
"""

TASKS: dict[str, JSON] = {
    "echo": {
        "kind": "tool", "use": "std.echo", "in": {"n": "n + 1", "token": "token"}, "out": {"n": "int"}, "usd": 0.0001,
    },
    "ask": {
        "kind": "llm", "use": "small", "in": {"token": "token", "n": "n"}, "prompt": "[[{token}/ask/{n}]] please",
        "max_tokens": 50, "timeout": "3s", "retry": MODEL_RETRY,
    },
    "each": {
        "kind": "llm", "use": "small", "in": {"token": "token", "n": "item"}, "prompt": "[[{token}/each/{n}]]",
        "max_tokens": 50, "timeout": "3s", "retry": MODEL_RETRY,
    },
    "typed": {
        "kind": "llm", "use": "small", "in": {"token": "token", "n": "n"}, "prompt": "[[{token}/typed/{n}]]",
        "out": {"nonce": "string", "n": "int"}, "max_tokens": 50, "timeout": "3s", "retry": MODEL_RETRY,
    },
    "slowly": {
        "kind": "llm", "use": "small", "in": {"token": "token", "n": "n"}, "prompt": "[[{token}/slowly/{n}]]",
        "max_tokens": 50, "timeout": "3s", "retry": MODEL_RETRY,
    },
    "shaky": {
        "kind": "tool", "use": "std.fail", "in": {"times": "2", "retryable": "true"}, "out": {"attempt": "int"},
        "retry": {"max": 3, "backoff": "40ms"},
    },
    "blink": {"kind": "wait", "for": "60ms"},
    "pause": {"kind": "wait", "for": "250ms"},
    "ages": {"kind": "wait", "for": "1h"},
    "paid": {"kind": "event", "use": "com.chaos.paid", "match": "event.data.token == token", "timeout": "10m"},
    "take": {
        "kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}, "usd": 0.0001, "undo": "give",
    },
    "give": {"kind": "tool", "use": "std.echo", "in": {"n": "result.n"}, "usd": 0.0001, "retry": {"max": 2}},
    "break": {"kind": "tool", "use": "std.fail"},
    "back": {"kind": "compensate"},
    "child": {
        "kind": "workflow", "use": "child", "in": {"token": "token + '-c'", "n": "n"}, "out": {"n": "int"}, "usd": 0.01,
    },
    "sold": {
        "kind": "workflow", "use": "child", "in": {"token": "token + '-c'", "n": "n"}, "out": {"n": "int"},
        "usd": 0.01, "undo": "unsold",
    },
    "unsold": {"kind": "workflow", "use": "unsold", "in": {"token": "token + '-u'", "n": "result.n"}, "usd": 0.01},
    "hand": {"kind": "tool", "use": "std.echo", "in": {"n": "n"}, "undo": "hand_back"},
    "hand_back": {"kind": "tool", "use": "std.echo", "in": {"n": "result.n"}},
    "seek": {
        "kind": "agent", "use": "seeker", "in": {"token": "token", "n": "n"}, "prompt": "[[{token}/seek/{n}]] please",
        "out": {"nonce": "string"}, "turns": 8, "timeout": "3s", "retry": MODEL_RETRY, "usd": 0.02,
    },
    "asked": {"kind": "human", "use": "somebody", "out": {"n": "int"}, "timeout": "10m"},
    "never": {"kind": "event", "use": "com.chaos.paid", "match": "false", "timeout": "300ms"},
}  # fmt: skip


def task(name: str, **more: JSON) -> JSON:
    return {"type": "task", "task": name, **more}


ECHO = task("echo", set={"n": "result.n"})
ASK = task("ask", set={"word": "result.text"})


def _document(name: str, used: str, **parts: JSON) -> dict[str, JSON]:
    return {
        "agentflow": "plan/v1", "kind": "bt", "name": name, "limits": {"steps": 60, "usd": 0.05, "wall": "1h"},
        "input": {"token": "string", "n": "int"}, "vars": {"word": "string"}, "output": {"n": "n", "word": "word"},
        "tasks": {each: TASKS[each] for each in used.split()},
    } | parts  # fmt: skip


def _series(name: str, used: str, *children: JSON, **parts: JSON) -> dict[str, JSON]:
    return _document(name, used, root={"type": "sequence", "children": list(children)}, **parts)


def _parallel(*children: JSON, **how: int) -> JSON:
    return {"type": "parallel", "children": list(children), **how}


Run = Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class Workflow:
    """A document, how often it is chosen, and what its runs may come to.

    ``good(run)`` says whether a run (its row) that ended by itself is what it must be. ``code`` is the error code
    that every run must end with, where it must fail. ``scene`` names what happens to the run from outside.
    """

    document: dict[str, JSON]
    weight: int
    good: Callable[[Run], bool] = lambda run: True
    code: str = ""
    scene: str = ""

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def forks(self) -> bool:
        """Whether another run may go on from any point of one, and comes to the same by itself."""
        return not self.scene and not self.code

    @property
    def calls_models(self) -> bool:
        return any(each["kind"] == "llm" for each in self.document["tasks"].values())


def _grown(by: int) -> Callable[[Run], bool]:
    return lambda run: bool(run["output"]["n"] == run["input"]["n"] + by)


def _taken_back(run: Run) -> bool:
    """What was sold was given back, and handed back, too; where selling failed there was nothing to undo."""
    return _grown(4 if run["output"]["word"] == "sold" else 1)(run)


def _said(run: Run) -> bool:
    return str(run["output"]["word"]).startswith("nonce ")


FSM = {
    "kind": "fsm",
    "initial": "asking",
    "states": {
        "asking": {"run": "ask", "transitions": [{"event": "done", "set": {"word": "result.text"}, "to": "holding"}]},
        "holding": {"run": "ages", "transitions": [
            {"event": "go", "if": "event.data.token == token", "set": {"n": "n + 10"}, "to": "moving"},
            {"event": "cancel", "set": {"word": "'cancelled'"}, "to": "leaving"},
            {"event": "done", "to": "badly"},
        ]},
        "moving": {"run": "echo", "transitions": [{"event": "done", "set": {"n": "result.n"}, "to": "well"}]},
        "leaving": {"run": "echo", "transitions": [{"event": "done", "to": "badly"}]},
        "well": {"final": "success"},
        "badly": {"final": "failure"},
    },
}  # fmt: skip

TIMED = {
    "kind": "fsm",
    "initial": "working",
    "states": {
        "working": {"initial": "begun", "visits": 3, "exit": {"set": {"word": "word + '.'"}}, "transitions": [
            {"after": "250ms", "set": {"n": "n + 1"}, "to": "resting"}, {"event": "done", "to": "badly"},
        ]},
        "begun": {"in": "working", "run": "blink", "transitions": [{"event": "done", "to": "held"}]},
        "held": {"in": "working", "run": "ages", "transitions": [{"event": "done", "to": "gone"}]},
        "gone": {"in": "working", "final": "success"},
        "was": {"in": "working", "history": "shallow", "to": "begun"},
        "resting": {"run": "echo", "transitions": [
            {"event": "done", "if": "word == '..'", "set": {"n": "result.n"}, "raise": "rested"},
            {"event": "done", "set": {"n": "result.n"}, "to": "was"},
            {"event": "rested", "to": "well"},
        ]},
        "well": {"final": "success"},
        "badly": {"final": "failure"},
    },
}  # fmt: skip

WORKFLOWS = (
    Workflow(_series("series", "echo ask", ECHO, ASK, ECHO), 20, lambda run: _grown(2)(run) and _said(run)),
    Workflow(
        _series("wide", "ask echo blink", _parallel(task("ask"), task("blink"), task("echo")), ECHO), 10, _grown(1)
    ),
    Workflow(
        _series("mapped", "each echo", {"type": "map", "over": "items", "max": 10, "concurrency": 3,
                "child": task("each")}, ECHO, vars={"word": "string", "items": "list(int)"}), 8, _grown(1),
    ),
    Workflow(_series("typed", "typed echo", task("typed", set={"word": "result.nonce"}), ECHO), 10, _grown(1)),
    Workflow(_series("retried", "shaky echo", task("shaky", set={"n": "n + result.attempt"}), ECHO), 10, _grown(4)),
    Workflow(_series("waits", "pause echo", ECHO, task("pause"), ECHO), 10, _grown(2)),
    Workflow(
        _series("event", "paid echo", ECHO, task("paid", set={"n": "n + int(result.data.sum)"}), ECHO), 8, _grown(11),
        scene="event",
    ),
    Workflow(
        _document("late", "never echo", root={"type": "fallback", "children": [task("never"), ECHO]}), 4, _grown(1),
    ),
    Workflow(
        _series("race", "slowly pause echo", _parallel(task("slowly"), task("pause"), need=1), ECHO), 8, _grown(1)
    ),
    Workflow(_document("machine", "ask ages echo", **FSM), 8, _grown(11), scene="signal"),
    Workflow(_document("timed", "blink ages echo", **TIMED), 6, _grown(4)),
    Workflow(_document("machine-left", "ask ages echo", **FSM), 3, code="cancelled", scene="cancel-plan"),
    Workflow(
        _series("cancelled", "echo slowly ages", ECHO, _parallel(task("slowly"), task("ages"))), 8, code="cancelled",
        scene="cancel",
    ),
    Workflow(
        _series("poor", "echo", ECHO, ECHO, ECHO, ECHO, limits={"steps": 10, "usd": 0.00025, "wall": "1h"}), 5,
        code="plan_failed",
    ),
    Workflow(_series("walled", "ages", task("ages"), limits={"steps": 3, "wall": "300ms"}), 3, code="wall_limit"),
    Workflow(
        _series("tooled", "echo", {"type": "task", "task": "effect", "set": {"word": "'nonce ' + result.nonce"}}, ECHO,
                input={"token": "string", "n": "int", "url": "string"},
                tools={"effect": {"kind": "python", "code": EFFECT}},
                tasks={"echo": TASKS["echo"], "effect": {
                    "kind": "tool", "use": "effect", "in": {"url": "url", "key": "'[[' + token + '/effect/0]]'"},
                    "out": {"nonce": "string"}, "retry": {"max": 5, "backoff": "50ms"}, "timeout": "15s"}}),
        2, lambda run: _grown(1)(run) and _said(run),
    ),
    Workflow(
        _series("agent", "echo seek", task("seek", set={"word": "'nonce ' + result.nonce"}), ECHO,
                tools={"effect": {"kind": "python", "code": EFFECT, "in": {"url": "string", "key": "string"}}},
                agents={"seeker": {"model": "small", "tools": ["effect"], "max_tokens": 50}}),
        3, lambda run: _grown(1)(run) and _said(run),
    ),
    Workflow(
        _series("charged", "echo", {"type": "fallback", "children": [
                    {"type": "task", "task": "charge", "set": {"word": "'nonce ' + result.nonce"},
                     "on_failure": {"word": "event.code"}},
                    {"type": "check", "if": "word == 'outcome_unknown'"}]}, ECHO,
                input={"token": "string", "n": "int", "url": "string"},
                tools={"charge": {"kind": "python", "code": ONCE, "effects": "once"}},
                tasks={"echo": TASKS["echo"], "charge": {
                    "kind": "tool", "use": "charge", "in": {"url": "url", "token": "token"},
                    "key": "token + '/charge/0'", "out": {"nonce": "string"}, "timeout": "15s",
                    "retry": {"max": 8, "backoff": "50ms"}}}),
        3, lambda run: _grown(1)(run) and (_said(run) or run["output"]["word"] == "outcome_unknown"),
    ),
    Workflow(_series("child", "echo ask", ECHO, ASK), 0, lambda run: _grown(1)(run) and _said(run)),
    Workflow(_series("unsold", "echo", ECHO), 0, _grown(1)),
    Workflow(
        _document("sold", "sold unsold hand hand_back break back echo", root={"type": "fallback", "children": [
            {"type": "sequence", "children": [
                task("sold", set={"n": "result.n", "word": "'sold'"}), task("hand"), task("break")]},
            {"type": "sequence", "children": [task("back", set={"n": "n + result.undone"}), ECHO]}]}), 6, _taken_back,
    ),
    Workflow(_series("family", "child echo", task("child", set={"n": "result.n"}), ECHO), 8, _grown(2)),
    Workflow(
        _series("family-left", "child ages", _parallel(task("child"), task("ages"))), 3, code="cancelled",
        scene="cancel",
    ),
    Workflow(
        _document("undone", "take give break back echo", root={"type": "fallback", "children": [
            {"type": "sequence", "children": [task("take", set={"n": "result.n"}), task("take"), task("break")]},
            {"type": "sequence", "children": [task("back", set={"n": "n + result.undone"}), ECHO]}]}), 8, _grown(4),
    ),
    Workflow(
        _series("asked", "asked echo", task("asked", set={"n": "n + result.n"}), ECHO), 6, _grown(8), scene="answer",
    ),
    Workflow(_series("paused", "pause echo ask", task("pause"), ECHO, ASK), 6, _grown(1), scene="pause"),
    Workflow(
        _series("triggered", "echo ask", ECHO, ASK, trigger={
            "type": "com.chaos.started", "if": "event.data.n >= 0",
            "input": {"token": "event.data.token", "n": "int(event.data.n)"}}), 10, _grown(1), scene="trigger",
    ),
)  # fmt: skip

BY_NAME = {workflow.name: workflow for workflow in WORKFLOWS}
UNPRICED = Workflow(
    _series("unpriced", "ask", task("ask")) | {"tasks": {"ask": {**TASKS["ask"], "use": "dear"}}},
    0,
    code="unknown_price",
)
"""Its model has no known price: it may not even be registered, and if it is, none of its calls may be made."""

TEAM = "team"
"""The named budget that some runs of the third tenant are charged to."""

LIMITS = {
    "tenant": {"concurrency": 15}, "workflow:waits": {"concurrency": 2}, "model:small": {"concurrency": 4},
    "tool:std.echo": {"per_second": 40, "burst": 10},
}  # fmt: skip
"""Limits of one tenant, so that some of what it asks for has to wait before a gate."""
