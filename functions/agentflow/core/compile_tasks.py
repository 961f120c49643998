"""Tasks, tools, trigger and output: the parts of a plan that both planners share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentflow.core.builtin import BUILTIN_TOOLS, PREFIX
from agentflow.core.canonical import RESULTS, undone
from agentflow.core.draft import (
    BOOL,
    JSON_TYPE,
    STRING,
    Draft,
    Table,
    micro,
    milliseconds,
    result_scope,
    size,
)
from agentflow.core.expr import Expr
from agentflow.core.plan import (
    MAX_TOKENS,
    SEPARATOR,
    Agent,
    Child,
    Retry,
    Task,
    ToolSpec,
    Trigger,
    Undo,
)
from agentflow.core.planning_wire import schema
from agentflow.core.price import MILLION
from agentflow.core.prompt import placeholders
from agentflow.core.types import Type, parse

# An llm task's `reply` and the kinds judge and keep are not for documents: core.planning makes such tasks.
_TIMEOUT = {"llm": "60s", "tool": "60s", "agent": "60s", "event": "60s"}
"""How long a task may take that does not say so (an agent: each turn); those that are not here as long as they like."""

TURNS = 8
"""Most turns of an agent whose task does not say so."""

_RESULT = {
    kind: tuple((field, read, parse(type_)) for field, (read, type_) in fields.items())
    for kind, fields in RESULTS.items()
}
"""What the result of a task without ``out`` holds; of the other kinds it may be any object."""


def tools(draft: Draft) -> dict[str, ToolSpec]:
    """The tools shipped with the workflow."""
    found = {}
    for name, entry in sorted(draft.document.get("tools", {}).items()):
        path = f"tools.{name}"
        if name.startswith(PREFIX):
            draft.note(
                path, f"{name!r} is the name of a built-in tool", "choose another name", "reserved_name"
            )
        if "file" in entry:
            draft.note(
                f"{path}.file",
                "a file cannot be read here",
                "give the code itself under `code` (the CLI does)",
                "tool_file",
            )
        elif not entry.get("code"):
            mend = "give the Python code that defines run(**input) -> dict"
            draft.note(f"{path}.code", "is missing", mend, "schema")
        found[name] = ToolSpec(
            name=name,
            kind=entry.get("kind", "python"),
            code=entry.get("code", ""),
            timeout_ms=milliseconds(entry["timeout"]) if "timeout" in entry else None,
            memory_bytes=size(entry.get("memory", "256MiB")),
            cpu=float(entry.get("cpu", 1.0)),
            output_bytes=size(entry.get("output", "64KiB")),
            price_micro=micro(entry.get("usd", 0)),
            inputs=_takes(draft, entry["in"], f"{path}.in") if "in" in entry else None,
            description=entry.get("description", ""),
            effects=entry.get("effects", ""),
            micro_per_million_seconds=micro(entry.get("usd_per_second", 0), MILLION),
        )
    return found


def _takes(draft: Draft, table: Table, path: str) -> dict[str, Type]:
    """What a tool takes. Its names are not read by expressions: any will do."""
    return {name: draft.type(table[name], f"{path}.{name}") for name in sorted(table)}


def tasks(draft: Draft) -> None:
    """Compile the task table into ``draft.tasks``."""
    for name, entry in sorted(draft.document["tasks"].items()):
        draft.tasks[name] = _task(draft, name, entry)
        if entry["kind"] == "tool":
            _tool_use(draft, f"tasks.{name}.use", entry["use"], draft.tools)
    for name, entry in draft.document["tasks"].items():
        if undone(entry, draft.document["tasks"]):
            draft.tasks[name] = replace(draft.tasks[name], undo=_undo(draft, name, entry["undo"]))
    _money(draft, draft.tools)


def _task(draft: Draft, name: str, entry: Table) -> Task:
    path = f"tasks.{name}"
    kind = entry["kind"]
    if SEPARATOR in name:
        draft.note(path, f"{SEPARATOR!r} is for the parts of an agent", "choose another name", "reserved_name")
    out = draft.types(entry["out"], f"{path}.out") if "out" in entry else None
    here = entry if name not in draft.elsewhere else {}  # else the expressions are compiled where it runs
    undoes = any(each.get("undo") == name for each in draft.document["tasks"].values())
    scope = {**draft.names, "item": JSON_TYPE, **({"result": JSON_TYPE} if undoes else {})}
    inputs = _inputs(draft, path, entry, scope if here else None)
    agent = _agent(draft, path, entry) if kind == "agent" else None
    if kind in ("llm", "agent"):
        _prompt(draft, path, entry)
    if kind == "wait" and ("for" in entry) == ("until" in entry):
        draft.note(path, "waits neither `for` some time nor `until` a time, or for both", "give one of them", "schema")
    if "until" in here and (until := draft.expr(here["until"], scope, STRING, f"{path}.until")):
        inputs["until"] = until
    place = entry if undoes else here  # what undoes something waits in no subtree
    match, key = place.get("match"), place.get("key")
    timeout = entry.get("timeout", _TIMEOUT.get(kind))
    return Task(
        name=name,
        kind=kind,
        use=entry.get("use", ""),
        prompt=entry.get("prompt", ""),
        system=agent.system if agent else entry.get("system", ""),
        inputs=inputs,
        files=frozenset(name for name, expr in inputs.items() if is_file(expr.source, draft.names)),
        out=out,
        retry=_retry(draft, entry.get("retry", {}), f"{path}.retry"),
        timeout_ms=milliseconds(timeout) if timeout else None,
        for_ms=milliseconds(entry["for"]) if "for" in entry else None,
        match=match and draft.expr(match, {**draft.names, "event": JSON_TYPE}, BOOL, f"{path}.match"),
        key=key and draft.expr(key, {**draft.names, "item": JSON_TYPE}, STRING, f"{path}.key"),
        keyed="key" in entry,
        max_tokens=entry.get("max_tokens", MAX_TOKENS),
        price_cap_micro=micro(entry["usd"]) if "usd" in entry else None,
        child=_child(draft, entry["use"], f"{path}.use") if kind == "workflow" else None,
        reply=schema(*entry["reply"]) if "reply" in entry else None,
        scope=entry.get("scope", "") if kind == "compensate" else "",
        agent=agent,
        turns=entry.get("turns", TURNS) if agent else 0,
        min_tokens=_fewest(draft, path, entry),
        cheaper=entry.get("cheaper", ""),
        at_limit=entry.get("at_limit", ""),
        fields=_fields("" if "reply" in entry else kind, out),
    )


def _inputs(draft: Draft, path: str, entry: Table, scope: Mapping[str, Type] | None) -> dict[str, Expr]:
    """What a task is given; where its tool says what it takes, exactly that. Without a ``scope`` the expressions are
    compiled elsewhere."""
    given = entry.get("in", {})
    tool = draft.tools.get(entry["use"]) if entry["kind"] == "tool" else None
    if tool is None or tool.inputs is None:
        return {} if scope is None else draft.exprs(given, scope, f"{path}.in")
    for name in sorted(tool.inputs.keys() - given.keys()):
        draft.note(f"{path}.in.{name}", f"is missing: {tool.name} takes it", "e.g. an input or a variable", "missing")
    for name in sorted(given.keys() - tool.inputs.keys()):
        draft.unknown(f"{path}.in.{name}", "input", name, tool.inputs)
    known = {name: given[name] for name in given.keys() & tool.inputs.keys()}
    return {} if scope is None else draft.exprs(known, scope, f"{path}.in", tool.inputs)


def _retry(draft: Draft, entry: Table, path: str) -> Retry:
    given: dict[str, Any] = {key: entry[key] for key in ("max", "factor", "jitter") if key in entry}
    given |= {f"{key}_ms": milliseconds(entry[key]) for key in ("backoff", "max_backoff") if key in entry}
    given |= {key: frozenset(entry[key]) for key in ("only", "never") if key in entry}
    if both := given.get("only", frozenset()) & given.get("never", frozenset()):
        draft.note(f"{path}.never", f"{min(both)!r} is in `only`, too", "keep one of them")
    retry = Retry(**given)
    if retry.backoff_ms > retry.max_backoff_ms:
        if "max_backoff" in entry:
            draft.note(f"{path}.max_backoff", "is less than `backoff`", "make it at least as long")
        retry = replace(retry, max_backoff_ms=retry.backoff_ms)
    return retry


def _fewest(draft: Draft, path: str, entry: Table) -> int | None:
    fewest: int | None = entry.get("min_tokens")
    if fewest is not None and fewest > entry.get("max_tokens", MAX_TOKENS):
        draft.note(f"{path}.min_tokens", "is more than max_tokens", "make it at most as many")
    return fewest


def _agent(draft: Draft, path: str, entry: Table) -> Agent | None:
    agent = draft.agents.get(entry["use"])
    if agent is None:
        draft.unknown(f"{path}.use", "agent", entry["use"], draft.agents)
        return None
    _fill(draft, f"agents.{agent.name}.system", agent.system, path, entry)
    return agent


def _child(draft: Draft, use: str, path: str) -> Child:
    """``name``, ``name@3``, ``name@3-`` or ``name@3-5``; '' where the input says which."""
    name, at, versions = use.partition("@")
    first, dash, last = versions.partition("-")
    child = Child(name, int(first) if at else None, int(last) if last else None if dash or not at else int(first))
    if child.first and child.last and child.last < child.first:
        draft.note(path, "the last version is before the first", "write it as name@first-last")
    if name == draft.document["name"]:
        draft.note(path, f"{name!r} would run itself, without an end", "use a loop in the plan", "child_cycle")
    return child


def _undo(draft: Draft, name: str, target: str) -> Undo | None:
    path = f"tasks.{name}.undo"
    undoing = draft.tasks.get(target)
    if undoing is None:
        draft.unknown(path, "task", target, draft.tasks)
        return None
    if undoing.kind == "compensate" or undone(draft.document["tasks"][target], draft.document["tasks"]):
        mend = "name a task that does one thing, and that is not undone itself"
        draft.note(path, f"{target!r} cannot undo anything", mend, "undo")
        return None
    scope = {**draft.names, "item": JSON_TYPE, **result_scope(draft.tasks[name])}
    seen = None if name in draft.elsewhere else scope
    return Undo(target, _inputs(draft, f"tasks.{target}", draft.document["tasks"][target], seen))


def _fields(kind: str, out: dict[str, Type] | None) -> tuple[tuple[str, str, Type], ...]:
    if out is not None:
        own = (("data", "result.data", JSON_TYPE),) if kind == "event" else ()
        return (*((field, f"result.{field}", type_) for field, type_ in out.items()), *own)
    return _RESULT.get(kind, (("", "result", JSON_TYPE),))


def _prompt(draft: Draft, path: str, entry: Table) -> None:
    for part in ("prompt", "system"):
        _fill(draft, f"{path}.{part}", entry.get(part, ""), path, entry)


def _fill(draft: Draft, path: str, text: str, task_path: str, entry: Table) -> None:
    """Check that the text at ``path`` can be filled with what its task is given."""
    try:
        names = placeholders(text)
    except ValueError as fault:
        draft.note(path, str(fault), "write {{ or }} for a brace", "prompt")
        return
    whose = "the task's" if path.startswith(task_path) else f"{task_path}'s"
    for name in sorted(names - entry.get("in", {}).keys()):
        mend = f"add it: in: {{{name}: {name if name in draft.names else '...'}}}"
        draft.note(path, f"{{{name}}} is not a key of {whose} `in`", mend, "prompt")


_ACCESS = re.compile(r"([a-z][a-z0-9_]*)(\.[a-z][a-z0-9_]*|\[[^\[\]]*\])*")


def is_file(source: str, scope: Mapping[str, Type]) -> bool:
    """Whether an expression is a ``file`` as it stands: a name of such a type, or an element of one.

    CEL sees strings, so the type does not survive an operator.
    """
    match = _ACCESS.fullmatch(source)
    return match is not None and match[1] in scope and "file" in scope[match[1]].name


def _tool_use(draft: Draft, path: str, use: str, known: dict[str, ToolSpec]) -> None:
    if use in known or use in BUILTIN_TOOLS:
        return
    if "." in use and not use.startswith(PREFIX):
        draft.later(
            path, f"the tool {use!r} from outside the workflow", "ship it with the workflow, under `tools`"
        )
    else:
        draft.unknown(path, "tool", use, {*known, *BUILTIN_TOOLS})


def _money(draft: Draft, known_tools: dict[str, ToolSpec]) -> None:
    if "usd" in draft.document["limits"]:
        return
    for task in draft.tasks.values():
        tool = known_tools.get(task.use) if task.kind == "tool" else None
        price = tool.price_micro or tool.micro_per_million_seconds if tool is not None else task.price_cap_micro
        if task.kind in ("llm", "agent") or price:
            draft.note(
                "limits.usd",
                f"is missing, but task {task.name!r} costs money",
                "set the most that one run may spend, e.g. usd: 1.0",
                "no_budget",
            )
            return


_CE_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")


def trigger(draft: Draft, inputs: dict[str, Type]) -> Trigger | None:
    """The trigger: every required input is given, and by the right type."""
    entry: dict[str, Any] | None = draft.document.get("trigger")
    if entry is None:
        return None
    scope = {"event": JSON_TYPE}
    given = entry.get("input", {})
    for name in sorted(inputs.keys() - given.keys()):
        draft.note(
            f"trigger.input.{name}",
            "is missing: the workflow needs this input",
            "e.g. event.data." + name,
            "missing",
        )
    known = {}
    for name in sorted(given):
        if name in draft.names:
            known[name] = given[name]
        else:
            draft.unknown(f"trigger.input.{name}", "input", name, draft.names)
    condition = draft.expr(entry["if"], scope, BOOL, "trigger.if") if "if" in entry else None
    exprs = draft.exprs(known, scope, "trigger.input", draft.names)
    budget = draft.expr(entry["budget"], scope, STRING, "trigger.budget") if "budget" in entry else None
    return Trigger(entry["type"], condition, tuple(exprs.items()), budget)


def output(draft: Draft) -> tuple[tuple[str, Expr], ...] | None:
    """The run's result; None: all vars."""
    table = draft.document.get("output")
    return None if table is None else tuple(draft.exprs(table, draft.names, "output").items())
