"""The variables of subtrees: every start of one is an instance with variables of its own.

An instance is a number, never used again in the run. The table holds, for instance 4 of node 7, ``4``: [7, the
instance around it or 0, how many need it], and ``4/x``, its variables (null is left out). It is needed by its node, by
the instances inside it, and by catches that run in it; when nobody needs it any more it goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentflow.core.entries import Entries
from agentflow.core.node import Node
from agentflow.core.turn import Turn
from agentflow.core.types import JSON


class Instances:
    """The instances there are, in one tick."""

    __slots__ = ("_nodes", "_turn", "entries", "last")

    def __init__(self, nodes: tuple[Node, ...], turn: Turn, entries: Entries, last: int) -> None:
        self._nodes = nodes
        self._turn = turn
        self.entries = entries
        self.last = last

    def begin(self, node: Node, around: int, given: Mapping[str, JSON]) -> int:
        """A new instance of the subtree ``node`` inside the instance ``around``."""
        self.last += 1
        self.entries[str(self.last)] = [node.index, around, 1]
        for name, value in node.own:
            self._write(self.last, name, given.get(name, value))
        if around:
            self.retain(around)
        return self.last

    def retain(self, number: int) -> None:
        """One more needs it."""
        index, around, needed = self.entries.get(str(number))
        self.entries[str(number)] = [index, around, needed + 1]

    def release(self, number: int) -> None:
        """One less needs it; with the last one it goes, and what only it needed."""
        while number:
            index, around, needed = self.entries.get(str(number))
            if needed > 1:
                self.entries[str(number)] = [index, around, needed - 1]
                return
            self.entries.pop(str(number))
            for name, _ in self._nodes[index].own:
                self.entries.pop(f"{number}/{name}")
            number = around

    def node(self, number: int) -> Node:
        """The subtree that this is a start of."""
        index: int = self.entries.get(str(number))[0]
        return self._nodes[index]

    def read(self, number: int, name: str) -> JSON:
        number, name = self._home(number, name)
        return self.entries.get(f"{number}/{name}") if number else self._turn.vars[name]

    def assign(self, number: int, values: Mapping[str, JSON]) -> None:
        """Set variables that the instance sees: its own, or by it those of the instances around and the run's."""
        run: dict[str, JSON] = {}
        for seen, value in values.items():
            home, name = self._home(number, seen)
            if home:
                self._write(home, name, value)
            else:
                run[name] = value
        if run:
            self._turn.keep(run)

    def _home(self, number: int, name: str) -> tuple[int, str]:
        """Whose variable it is, and what it is called there; 0 is the run."""
        while number:
            index, around, _ = self.entries.get(str(number))
            outer = self._nodes[index].share.get(name)
            if outer is None:
                break
            number, name = around, outer
        return number, name

    def _write(self, number: int, name: str, value: JSON) -> None:
        if value is None:
            self.entries.pop(f"{number}/{name}")
        else:
            self.entries[f"{number}/{name}"] = value


class Names(Mapping[str, Any]):
    """What an expression inside an instance sees."""

    __slots__ = ("_instances", "_number")

    def __init__(self, instances: Instances, number: int) -> None:
        self._instances = instances
        self._number = number

    def __getitem__(self, name: str) -> JSON:
        return self._instances.read(self._number, name)

    def __iter__(self) -> Iterator[str]:
        node = self._instances.node(self._number)
        return iter([*(name for name, _ in node.own), *node.share])

    def __len__(self) -> int:
        return sum(1 for _ in self)
