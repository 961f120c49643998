"""Nodes of a BehaviorTree.CPP tree as nodes of a plan, with ``Said`` in place of expressions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from agentflow.imports import btcpp_model as model
from agentflow.imports.btcpp_board import Board, entry_of
from agentflow.imports.btcpp_loops import loop
from agentflow.imports.btcpp_tasks import Tasks
from agentflow.imports.findings import Findings, duration
from agentflow.imports.naming import TooLong
from agentflow.imports.syntax import Binary, Literal
from agentflow.imports.writing import Said
from agentflow.imports.xml import Element

MAX_MS = 365 * 86_400_000
CONDITIONS = {"_failureIf": "fail_if", "_successIf": "success_if", "_skipIf": "skip_if", "_while": "while"}
SCRIPTS = {"_onSuccess": "on_success", "_onFailure": "on_failure", "_onHalted": "on_halt", "_post": "post"}
_NUMBER = re.compile(r"[+-]?[0-9]{1,11}")
_ELSE = {"FAILURE": "fail_if", "SUCCESS": "success_if", "SKIPPED": "skip_if"}
Table = dict[str, Any]


class Uses(Protocol):
    """Says what a node becomes that uses another tree."""

    def use(self, element: Element, board: Board) -> Table: ...


class Nodes:
    """Writes the nodes of one tree. ``loops``: the bound of loops that have none."""

    def __init__(self, board: Board, tasks: Tasks, uses: Uses, findings: Findings, loops: int) -> None:
        self.board = board
        self.tasks = tasks
        self.uses = uses
        self.findings = findings
        self.loops = loops

    def node(self, element: Element) -> Table:
        """The node, with its conditions and scripts."""
        name = model.node_id(element)
        try:
            made, around = self._checked(element, name), self._around(element)
        except TooLong as fault:
            self.findings.refuse(element, str(fault), "choose a shorter one")
            return {"type": "fail"}
        if around.keys() & made.keys():
            made = {"type": "sequence", "children": [made]}
        made |= around
        if (label := element.get("name")) and label != name:
            made["description"] = label[:200]
        return made

    def _around(self, element: Element) -> Table:
        """The conditions and scripts in a node's attributes."""
        found: Table = {}
        for attribute, key in CONDITIONS.items():
            if attribute in element.attributes:
                found[key] = self.board.condition(element, element.get(attribute))
        for attribute, key in SCRIPTS.items():
            if attribute in element.attributes:
                found[key] = self.board.assignments(element, element.get(attribute))
        return found

    def _checked(self, element: Element, name: str) -> Table:
        """The node itself, when it has as many children as it may have."""
        count = len(element.children)
        if name in model.UNREAD:
            self.findings.refuse(element, "is not read: plan/v1 has no such node", model.UNREAD[name])
        elif name in model.CONTROLS and not count:
            self.findings.refuse(element, "has no children", "add one")
        elif name in model.DECORATORS and count != 1:
            self.findings.refuse(element, f"has {count} children instead of one", "put them into a Sequence")
        elif name in model.LEAVES | model.SUBTREES and count:
            self.findings.refuse(element, "has children, but is a leaf", "put them beside it")
        elif name in model.SUBTREES:
            return self.uses.use(element, self.board)
        elif name in model.BUILT_IN:
            return self._built_in(element, name)
        elif element.tag in ("Control", "Decorator") or count or self.tasks.inner(name):
            self.findings.refuse(element, f"{name[:64]!r} is a control or decorator of its own", "say it with others")
        else:
            return self.tasks.node(element, name, self.board)
        return {"type": "fail"}

    def _built_in(self, element: Element, name: str) -> Table:
        if name in model.SERIES:
            kind, also = model.SERIES[name]
            return {"type": kind, **({also: True} if also else {}), "children": self._children(element)}
        if name in model.SWITCHES:
            return self._switch(element, model.SWITCHES[name])
        if name in model.WAYS:
            return self._way(element, model.WAYS[name])
        if name in model.LOOPS:
            return loop(element, name, self._child(element), self.board, self.findings, self.loops)
        if name in model.CHECKS:
            return self._compared(element, model.CHECKS[name])
        if name in model.RETRIES:
            return self._again(element, "retry", "num_attempts", {"type": "fail"})
        return _BUILT_IN[name](self, element)

    def _children(self, element: Element) -> list[Table]:
        return [self.node(child) for child in element.children]

    def _child(self, element: Element) -> Table:
        return self.node(element.children[0])

    # -- several children

    def _parallel(self, element: Element) -> Table:
        made: Table = {"type": "parallel", "children": self._children(element)}
        for key, ports in (("need", ("success_count", "success_threshold")),
                           ("fail_at", ("failure_count", "failure_threshold"))):  # fmt: skip
            port = next((port for port in ports if port in element.attributes), ports[0])
            count = self._number(element, port, -1 if key == "need" else 1)
            if count != (-1 if key == "need" else 1):
                made[key] = count
        return made

    def _parallel_all(self, element: Element) -> Table:
        made: Table = {"type": "parallel", "wait": "all", "children": self._children(element)}
        most = self._number(element, "max_failures", 1)
        return made if most == 1 else {**made, "fail_at": most}

    def _way(self, element: Element, kind: str) -> Table:
        if len(element.children) not in (2, 3):
            self.findings.refuse(element, f"has {len(element.children)} children", "give it two or three")
        return {"type": kind, "children": self._children(element)}

    def _switch(self, element: Element, count: int) -> Table:
        if len(element.children) != count + 1:
            self.findings.refuse(element, f"has {len(element.children)} children", f"give it {count}, and a default")
            return {"type": "fail"}
        *inner, default = self._children(element)
        cases: Table = {}
        for number, child in enumerate(inner, 1):
            case = element.get(f"case_{number}")
            if not case:
                self.findings.refuse(element, f"has no case_{number}", "name it")
            elif entry_of(case):
                self.findings.refuse(element, f"case_{number} is not known beforehand", "give a text or a number")
            cases.setdefault(str(self.board.enums.get(case, case)), child)
        value = Said(self.board.value(element, element.get("variable")), element)
        return {"type": "switch", "value": value, "cases": cases, "default": default}

    def _try(self, element: Element) -> Table:
        if len(element.children) < 2:
            self.findings.refuse(element, "has nothing to try, or no catch", "give it two children at least")
            return {"type": "fail"}
        *body, catch = self._children(element)
        if element.get("catch_on_halt") in ("true", "1"):
            self.findings.note(element, "when it is halted its catch runs to its end, not for one tick")
            return {"type": "try", "children": [*body, catch]}
        tried = {"type": "sequence", "children": body}
        forced = {"type": "force", "as": "success", "child": catch}
        failed = {"type": "sequence", "children": [forced, {"type": "fail"}]}
        return {"type": "if", "children": [tried, {"type": "succeed"}, failed]}

    # -- one child

    def _again(self, element: Element, kind: str, port: str, never: Table) -> Table:
        child = self._child(element)
        if port and port not in element.attributes:
            self.findings.refuse(element, f"has no {port}", "say how often")
        times = self._number(element, port, -1) if port else -1
        if times == 0:
            return never
        if times < 0:
            times = self.loops
            self.findings.note(element, f"has no bound: {times:,} times are allowed", "--loops")
        return {"type": kind, "max": times, "child": child}

    def _repeat(self, element: Element) -> Table:
        return self._again(element, "repeat", "num_cycles", {"type": "succeed"})

    def _keep(self, element: Element) -> Table:
        return self._again(element, "keep", "", {})

    def _invert(self, element: Element) -> Table:
        return {"type": "invert", "child": self._child(element)}

    def _force_success(self, element: Element) -> Table:
        return {"type": "force", "as": "success", "child": self._child(element)}

    def _force_failure(self, element: Element) -> Table:
        return {"type": "force", "as": "failure", "child": self._child(element)}

    def _delay(self, element: Element) -> Table:
        ms = self._milliseconds(element, "delay_msec")
        child = self._child(element)
        return {"type": "delay", "for": duration(ms), "child": child} if ms else child

    def _timeout(self, element: Element) -> Table:
        ms = self._milliseconds(element, "msec")
        child = self._child(element)
        return {"type": "timeout", "for": duration(ms), "child": child} if ms else child

    def _once(self, element: Element) -> Table:
        skip = element.get("then_skip", "true").lower() in ("true", "1")
        return {"type": "once", "then": "skip" if skip else "same", "child": self._child(element)}

    def _precondition(self, element: Element) -> Table:
        return self._unless(element, "else", self.board.condition(element, element.get("if"), unless=True))

    def _compared(self, element: Element, type_: str) -> Table:
        """Version 3's way to say a precondition: two values are the same."""
        one, other = (self.board.value(element, element.get(port), port, type_) for port in ("value_A", "value_B"))
        return self._unless(element, "return_on_mismatch", Said(Binary("!=", one, other), element, True))

    def _unless(self, element: Element, port: str, condition: Said) -> Table:
        """The child, unless the condition holds; then what the port says."""
        otherwise = _ELSE.get(element.get(port, "FAILURE").removeprefix("NodeStatus::"))
        if otherwise is None:
            self.findings.refuse(element, f"{port} is {element.get(port)[:40]!r}", "use FAILURE, SUCCESS or SKIPPED")
            otherwise = "fail_if"
        return {"type": "sequence", "children": [self._child(element)], otherwise: condition}

    # -- leaves

    def _script(self, element: Element) -> Table:
        sets = self.board.assignments(element, element.get("code"))
        return {"type": "succeed", **({"on_success": sets} if sets else {})}

    def _check(self, element: Element) -> Table:
        sets, last = self.board.script(element, element.get("code"))
        if last is None:
            self.findings.refuse(element, "its script does not end with a condition", "use a <Script>")
            return {"type": "fail"}
        check: Table = {"type": "check", "if": last}
        if not sets:
            return check
        return {"type": "sequence", "children": [{"type": "succeed", "on_success": sets}, check]}

    def _set(self, element: Element) -> Table:
        value = self.board.value(element, element.get("value"))
        return self._assigned(element, "output_key", Said(value, element))

    def _unset(self, element: Element) -> Table:
        self.findings.note(element, "makes the entry null: a plan's variables are always there")
        return self._assigned(element, "key", Said(Literal(None), element))

    def _assigned(self, element: Element, port: str, said: Said) -> Table:
        entry = entry_of(element.get(port), port) or element.get(port).strip()
        if not entry:
            self.findings.refuse(element, f"has no {port}", "name an entry")
            return {"type": "fail"}
        return {"type": "succeed", "on_success": {self.board.output(entry): said}}

    def _sleep(self, element: Element) -> Table:
        ms = self._milliseconds(element, "msec")
        return self.tasks.wait(ms) if ms else {"type": "succeed"}

    # -- numbers

    def _milliseconds(self, element: Element, port: str) -> int:
        ms = self._number(element, port, 0)
        if port not in element.attributes or not 0 <= ms <= MAX_MS:
            self.findings.refuse(element, f"{port} is not a time", "give milliseconds")
        return ms

    def _number(self, element: Element, port: str, default: int) -> int:
        """A whole number in a port; a plan knows it beforehand."""
        text = element.get(port, str(default)).strip()
        if _NUMBER.fullmatch(text):
            return int(text)
        self.findings.refuse(element, f"{port} is {text[:40]!r}, not known beforehand", "give a whole number")
        return default


_BUILT_IN: dict[str, Callable[[Nodes, Element], Table]] = {
    "Parallel": Nodes._parallel,
    "ParallelAll": Nodes._parallel_all,
    "TryCatch": Nodes._try,
    "Repeat": Nodes._repeat,
    "KeepRunningUntilFailure": Nodes._keep,
    "Inverter": Nodes._invert,
    "ForceSuccess": Nodes._force_success,
    "ForceFailure": Nodes._force_failure,
    "Delay": Nodes._delay,
    "Timeout": Nodes._timeout,
    "RunOnce": Nodes._once,
    "Precondition": Nodes._precondition,
    "AlwaysSuccess": lambda nodes, element: {"type": "succeed"},
    "AlwaysFailure": lambda nodes, element: {"type": "fail"},
    "Script": Nodes._script,
    "ScriptCondition": Nodes._check,
    "SetBlackboard": Nodes._set,
    "UnsetBlackboard": Nodes._unset,
    "Sleep": Nodes._sleep,
}
