"""The tasks that stand for the actions and conditions of a BehaviorTree.CPP document, which has no more than their
names and ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.imports.btcpp_board import Board, entry_of
from agentflow.imports.btcpp_model import Model, Port
from agentflow.imports.cel_text import DECLARED
from agentflow.imports.findings import Findings, duration
from agentflow.imports.naming import TooLong, field_name, task_name
from agentflow.imports.syntax import Name
from agentflow.imports.writing import Said
from agentflow.imports.xml import Element

Table = dict[str, Any]


class Tasks:
    """The tasks by name (``made``): one for each node and what its ports are given."""

    def __init__(self, models: Mapping[str, Model], findings: Findings) -> None:
        self.models = models
        self.findings = findings
        self.made: Table = {}

    def inner(self, name: str) -> bool:
        """Whether the document declares the node as one that has children."""
        return name in self.models and self.models[name].kind in ("Control", "Decorator")

    def node(self, element: Element, name: str, board: Board) -> Table:
        """A node that runs the task of a leaf."""
        known = self.models[name].ports if name in self.models else {}
        given: Table = {}
        out: Table = {}
        sets: Table = {}
        try:
            for port, text in self._texts(element, known).items():
                self._port(element, known.get(port, Port(port)), text, board, given, out, sets)
            task = self._task(element, name, given, out)
        except TooLong as fault:
            self.findings.refuse(element, str(fault), "choose a shorter one")
            return {"type": "fail"}
        return {"type": "task", "task": task, **({"set": sets} if sets else {})}

    def wait(self, ms: int) -> Table:
        """A node that only lets time pass."""
        name = f"sleep-{duration(ms)}"
        self.made.setdefault(name, {"kind": "wait", "for": duration(ms)})
        return {"type": "task", "task": name}

    def _texts(self, element: Element, known: Mapping[str, Port]) -> dict[str, str]:
        """What each port is given: in the element, or by default."""
        own = {"ID", "name"} if element.tag in ("Action", "Condition") else {"name"}
        given = {name: text for name, text in element.attributes.items() if name not in own and name[:1] != "_"}
        defaults = {port.name: port.default for port in known.values() if port.default is not None}
        return {**defaults, **given}

    def _port(
        self, element: Element, port: Port, text: str, board: Board, given: Table, out: Table, sets: Table
    ) -> None:
        field = field_name(port.name)
        entry = entry_of(text, port.name)
        if port.way != "out":
            given[field] = board.written(element, text, port.name, port.type)
        if port.way == "in":
            return
        if not entry:
            self.findings.refuse(element, f"the output {port.name[:64]!r} leads to no entry", "write {name}")
            return
        type_ = port.type or "json"
        out[field] = DECLARED.get(type_, type_)
        # As a name: the result's fields have types, which members of values do not.
        sets[board.output(entry, type_)] = Said(Name(f"result.{field}"), element, locals={f"result.{field}": type_})

    def _task(self, element: Element, name: str, given: Table, out: Table) -> str:
        base = task_name(name, capital=True)
        kind = self.models[name].kind if name in self.models else element.tag
        what = kind.lower() if kind in ("Action", "Condition") else "node"
        task: Table = {"kind": "tool", "use": "std.echo", "description": f"TODO: stands for the {what} {name}"[:200]}
        if given:
            task["in"] = given
        if out:
            task["out"] = out
        found, number = base, 1
        while self.made.get(found, task) != task:
            number += 1
            found = f"{base}-{number}"
        if found not in self.made:
            self.made[found] = task
            self.findings.note(element, f"is the task {found!r}, which does nothing yet", "say in `use` what does it")
        return found
