"""Values in a behaviour tree: what a node sees depends on where it is, in which item, subtree and catch.

Scopes are the beginnings of keys (see ``tick``). What is known of one is remembered until a list or a subtree begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.entries import Entries
from agentflow.core.expr import Expr
from agentflow.core.instances import Instances, Names
from agentflow.core.node import Node, Sets, Tree
from agentflow.core.turn import Turn
from agentflow.core.types import JSON

NO_LOCALS: dict[str, JSON] = {}


class Scopes:
    """What a tick needs to look up and set values: a base of it, because a part of its own would cost a decision time.

    ``assigned``: a variable was set, so that conditions may have changed.
    """

    __slots__ = ("_instance_of", "_locals", "assigned", "instances", "items", "loose", "n", "tree", "turn")

    assigned: bool
    instances: Instances
    items: Entries
    loose: Entries
    n: Entries
    tree: Tree
    turn: Turn

    def value(self, expr: Expr, scope: str, path: str, bound: Mapping[str, JSON] = NO_LOCALS) -> Any:
        """The value of ``expr`` in this scope; ``bound`` is what else it sees, such as a result."""
        local = self._local(scope, bound) if scope else bound
        return self.turn.value(expr, local, path, self.names(scope) if scope else None)

    def assign(
        self, sets: Sets, scope: str, path: str, key: str = "set", bound: Mapping[str, JSON] = NO_LOCALS
    ) -> None:
        """Set variables that this scope sees, all at once."""
        self.assigned = True
        number = self.instance(scope) if scope else 0
        if not number:
            self.turn.assign(sets, self._local(scope, bound) if scope else bound, path, key)
            return
        new = {name: self.value(expr, scope, f"{path}.{key}.{name}", bound) for name, expr in sets}
        self.instances.assign(number, new)

    def names(self, scope: str) -> Mapping[str, JSON] | None:
        """The variables of the subtree around; None: the run's."""
        number = self.instance(scope) if self.tree.scoped else 0
        return Names(self.instances, number) if number else None

    def instance(self, scope: str) -> int:
        """The start of a subtree that is around; 0: none is."""
        if not self.tree.scoped:
            return 0
        number = self._instance_of.get(scope)
        if number is None:
            around, last = _split(scope)
            if "." in last:
                number = self.instance(around)
            elif last[0] == "~":
                number = self.loose.get(last[1:]).get("own", 0)
            else:
                number = self.n.get(around + last)[1]
            self._instance_of[scope] = number
        return number

    def local(self, scope: str) -> dict[str, JSON]:
        """``item`` in this scope: the innermost map's. A subtree does not see it."""
        local = self._locals.get(scope)
        if local is None:
            around, last = _split(scope)
            index, _, item = last.partition(".")
            if item:
                local = {"item": self.items.get(around + index)[int(item)]}
            elif last[0] == "~":
                local = {name: value for name, value in self.loose.get(last[1:]).items() if name == "item"}
            else:
                local = NO_LOCALS
            self._locals[scope] = local
        return local

    def _local(self, scope: str, bound: Mapping[str, JSON]) -> Mapping[str, JSON]:
        return {**self.local(scope), **bound} if bound else self.local(scope)

    def begin_items(self, key: str, items: list[JSON]) -> None:
        """The list that the map ``key`` runs over from now on."""
        self.items[key] = items
        self._forget_scopes()

    def begin_instance(self, node: Node, scope: str, given: Mapping[str, JSON]) -> int:
        """The variables of a subtree that starts."""
        number = self.instances.begin(node, self.instance(scope), given)
        self._forget_scopes()
        return number

    def _forget_scopes(self) -> None:
        self._locals: dict[str, dict[str, JSON]] = {"": NO_LOCALS}
        self._instance_of = {"": 0}


def _split(scope: str) -> tuple[str, str]:
    """The scope around, and the last part."""
    around, slash, last = scope[:-1].rpartition("/")
    return around + slash, last
