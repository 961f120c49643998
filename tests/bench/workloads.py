"""The workflows that rows run: trivial steps, each with a price, so that what is measured is the engine."""

from __future__ import annotations

from typing import Any

STEPS = 10
PRICE_USD = 0.00001
GATE = "com.example.bench.gate"
SCRIPT = """
rules:
  - {{prompt: 'Say .+', reply: 'said', latency_ms: {latency_ms}}}
"""


def _document(
    name: str, steps: int, tasks: dict[str, Any], root: dict[str, Any], **more: Any
) -> dict[str, Any]:
    limits = {"steps": steps, "usd": round(steps * 0.001, 6)}
    head = {"agentflow": "plan/v1", "kind": "bt", "name": name, "limits": limits}
    return head | {"tasks": tasks, "root": root} | more


def _echo(value: str) -> dict[str, Any]:
    given = {"kind": "tool", "use": "std.echo", "in": {"n": value}, "out": {"n": "int"}}
    return given | {"usd": PRICE_USD}


def ten_steps() -> dict[str, Any]:
    """Ten tool steps in a row, each needing the one before."""
    step = {"type": "task", "task": "step", "set": {"n": "result.n"}}
    root = {"type": "sequence", "children": [step for _ in range(STEPS)]}
    return _document("ten-steps", STEPS, {"step": _echo("n + 1")}, root, vars={"n": "int"})


def gated_loop(first: int, last: int, calm_ms: int) -> dict[str, Any]:
    """``first`` steps, each needing the one before; a gate that an event opens; a pause; ``last`` more steps."""
    step = {"type": "task", "task": "step", "set": {"n": "result.n"}}
    children = [
        {"type": "repeat", "max": first, "child": step},
        {"type": "task", "task": "gate"},
        {"type": "task", "task": "calm"},
        {"type": "repeat", "max": last, "child": step},
    ]
    tasks = {
        "step": _echo("n + 1"),
        "gate": {"kind": "event", "use": GATE, "match": "event.subject == gate"},
        "calm": {"kind": "wait", "for": f"{calm_ms}ms"},
    }
    root = {"type": "sequence", "children": children}
    given = {"input": {"gate": "string"}, "vars": {"n": "int"}}
    return _document(f"loop-{first}", first + last + 2, tasks, root, **given)


def fan_out(width: int, concurrency: int | None = None) -> dict[str, Any]:
    """A map over a list of ``width`` whole numbers and its join."""
    root: dict[str, Any] = {
        "type": "map",
        "over": "items",
        "max": width,
        "child": {"type": "task", "task": "step"},
    }
    if concurrency is not None:
        root["concurrency"] = concurrency
    name = f"map-{width}" + (f"-by-{concurrency}" if concurrency else "")
    return _document(name, width, {"step": _echo("item")}, root, input={"items": "list(int)"})


def parallel(width: int) -> dict[str, Any]:
    """``width`` children of a parallel node and their join."""
    children = [{"type": "task", "task": "step"} for _ in range(width)]
    root = {"type": "parallel", "children": children}
    return _document(f"parallel-{width}", width, {"step": _echo("n")}, root, vars={"n": "int"})


def one_call() -> dict[str, Any]:
    """One model call."""
    ask = {"kind": "llm", "use": "small", "prompt": "Say {n}", "in": {"n": "n"}, "max_tokens": 20}
    ask["timeout"] = "10m"  # however slow the machine is, the far side answers
    return _document("one-call", 1, {"ask": ask}, {"type": "task", "task": "ask"}, input={"n": "int"})


def one_event() -> dict[str, Any]:
    """One step that waits for a CloudEvent."""
    wait = {"kind": "event", "use": "com.example.bench.never"}
    return _document("one-event", 1, {"wait": wait}, {"type": "task", "task": "wait"})


def one_wait(duration: str) -> dict[str, Any]:
    """One step that waits for a timer."""
    wait = {"kind": "wait", "for": duration}
    return _document(f"wait-{duration}", 1, {"wait": wait}, {"type": "task", "task": "wait"})


def tool_and_call() -> dict[str, Any]:
    """A tool step, then a model call: every function has something to do."""
    call = one_call()["tasks"]["ask"]
    children = [{"type": "task", "task": "step"}, {"type": "task", "task": "ask"}]
    root = {"type": "sequence", "children": children}
    return _document("tool-and-call", 2, {"step": _echo("n"), "ask": call}, root, input={"n": "int"})
