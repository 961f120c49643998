"""The trees of a BehaviorTree.CPP document: which uses which, and which of their entries are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from agentflow.imports import btcpp_model as model
from agentflow.imports.btcpp_board import Board, entry_of, renamed
from agentflow.imports.btcpp_nodes import Nodes
from agentflow.imports.btcpp_tasks import Tasks
from agentflow.imports.cel_text import DECLARED
from agentflow.imports.findings import Findings
from agentflow.imports.naming import TooLong, field_name, state_name
from agentflow.imports.syntax import Node, Unreadable
from agentflow.imports.writing import LOCALS, Said, Writer, assignments, inferred
from agentflow.imports.xml import Element

MAX_DEPTH = 30
Table = dict[str, Any]


class Trees:
    """Reads the main tree and all that it uses (``made``: their root nodes, by ID)."""

    def __init__(
        self,
        roots: Mapping[str, Element],
        main: str,
        tasks: Tasks,
        findings: Findings,
        *,
        loops: int,
        enums: Mapping[str, int],
    ) -> None:
        self.roots = roots
        self.main = main
        self.tasks = tasks
        self.findings = findings
        self.loops = loops
        self.enums = enums
        self.again = _started_again(roots, main)
        self.boards: dict[str, Board] = {}
        self.made: dict[str, Table] = {}
        self.open: list[str] = []
        self.same: dict[str, str] = {}
        self.given: list[tuple[str, Node]] = []
        self._read(main)

    def written(self) -> tuple[Table, Table, Table, Table]:
        """The document's inputs, its variables, its root, and its other trees."""
        types = self._types()
        known_set = self._set()
        inputs: Table = {}
        others: Table = {}
        root: Table = {}
        variables: Table = {}
        for tree, board in self.boards.items():
            known = {name: types[self._of(tree, name)] for name in board.fields.values()}
            node = Writer({**LOCALS, **known}, self.findings).written(self.made[tree])
            declared = {name: DECLARED.get(type_, type_) for name, type_ in known.items()}
            if tree == self.main:
                root = node
                inputs = {name: type_ for name, type_ in declared.items() if self._of(tree, name) not in known_set}
                variables = {name: type_ for name, type_ in declared.items() if name not in inputs}
            else:
                others[self.name(tree)] = {**({"vars": declared} if declared else {}), "root": node}
        return inputs, variables, root, others

    # -- uses

    def use(self, element: Element, board: Board) -> Table:
        """The node that uses another tree: what it gives it, and what it shares with it."""
        tree = element.get("ID")
        if tree not in self.roots:
            self.findings.refuse(element, f"there is no tree {tree[:64]!r}", "put it here")
            return {"type": "fail"}
        if tree in self.open or len(self.open) > MAX_DEPTH:
            what = "is used inside itself" if tree in self.open else "is too deep inside others"
            self.findings.refuse(element, f"{tree[:64]!r} {what}", "repeat it with a decorator")
            return {"type": "fail"}
        user = self.open[-1]
        inner = self._read(tree)
        given: Table = {}
        share: Table = {}
        try:
            for port, text in self._ports(element, tree).items():
                self._port(element, tree, port, text, (board, given, share))
            self._others(element, tree, (board, share))
        except (TooLong, Unreadable) as fault:
            self.findings.refuse(element, str(fault), "choose a shorter one, or remap it")
        for name, outer in share.items():
            self._join(_key(tree, name), _key(user, outer))
        for name, said in given.items():
            self.given.append((_key(tree, name), said.node))
            if tree in self.again and name in inner.set:
                message = f"{name!r} begins with a value each time the tree starts; there it keeps what it was set to"
                self.findings.refuse(element, message, "set it in the tree that uses it")
        made: Table = {"type": "subtree", "tree": self.name(tree)}
        return {**made, **({"in": given} if given else {}), **({"share": share} if share else {})}

    def _ports(self, element: Element, tree: str) -> dict[str, str]:
        ports = self.tasks.models[tree].ports.values() if tree in self.tasks.models else ()
        defaults = {port.name: port.default for port in ports if port.default is not None}
        own = {key: text for key, text in element.attributes.items() if key not in ("ID", "name") and key[:1] != "_"}
        own.pop("__shared_blackboard", None)
        return {**defaults, **own}

    def _port(
        self, element: Element, tree: str, port: str, text: str, into: tuple[Board, Table, Table]
    ) -> None:
        board, given, share = into
        inner = self.boards[tree]
        if port not in inner.fields:
            self.findings.note(element, f"nothing in {tree[:64]!r} reads {port[:64]!r}")
        elif entry := entry_of(text, port):
            outer = board.field(entry)
            if inner.fields[port] in inner.set:
                board.set.add(outer)
            share[inner.fields[port]] = outer
        else:
            declared = self.tasks.models[tree].ports.get(port) if tree in self.tasks.models else None
            value = inner.value(element, text, port, declared.type if declared is not None else "")
            given[inner.fields[port]] = Said(value, element)

    def _others(self, element: Element, tree: str, into: tuple[Board, Table]) -> None:
        """The entries that no port is for: the same as outside with autoremap, else the tree's own. Those outlast it,
        so where it may start again they are kept outside."""
        board, share = into
        inner = self.boards[tree]
        auto = element.get("_autoremap") in ("true", "1") or element.get("__shared_blackboard") in ("true", "1")
        ports = self._ports(element, tree)
        for entry, name in list(inner.fields.items()):
            if entry in ports:
                continue
            if entry[:1] == "@" or (auto and entry[:1] != "_" and name not in inner.kept):
                share[name] = board.field(entry)
            elif tree in self.again:
                share[name] = board.fresh(field_name(f"{self.name(tree).replace('-', '_')}_{name}"[:60]))
            if name in share and name in inner.set:
                board.set.add(share[name])

    def _read(self, tree: str) -> Board:
        """The tree's board, after its nodes have been read."""
        if tree not in self.boards:
            board = Board(self.findings, self.enums, main=tree == self.main)
            self.open.append(tree)
            made = Nodes(board, self.tasks, self, self.findings, self.loops).node(self.roots[tree])
            self.open.pop()
            self.boards[tree], self.made[tree] = board, made
        return self.boards[tree]

    def name(self, tree: str) -> str:
        """The plan's name of a tree."""
        written = partial(state_name, capital=True)
        return self.findings.named(written, tree or "tree", self.roots[tree], "tree")

    # -- types

    def _types(self) -> dict[str, str]:
        """The type of each entry, wherever it is seen: of all that it is assigned, else as it is read."""
        sets: list[tuple[str, Node, Mapping[str, str]]] = []
        sets += [(self._root(key), node, {}) for key, node in self.given]
        read: dict[str, set[str]] = {}
        for tree, board in self.boards.items():
            names = {name: self._of(tree, name) for name in board.fields.values()}
            for name, key in names.items():
                read.setdefault(key, set()).update(board.types.get(name, ()))
            made = assignments(self.made[tree])
            sets += [(names[name], renamed(said, names), said.locals) for name, said in made if name in names]
        known = self._set()
        inputs = {key: types for key, types in read.items() if key not in known}
        first = {key: next(iter(types)) if len(types) == 1 else "json" for key, types in inputs.items()}
        found = inferred(first, sets)
        return {key: found.get(key, "json") for key in read}

    def _set(self) -> set[str]:
        """The entries that something sets."""
        found = {self._root(key) for key, _ in self.given}
        return found | {self._of(tree, name) for tree, board in self.boards.items() for name in board.set}

    def _of(self, tree: str, name: str) -> str:
        return self._root(_key(tree, name))

    def _root(self, key: str) -> str:
        while key in self.same:
            key = self.same[key]
        return key

    def _join(self, one: str, other: str) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            self.same[one] = other


def _key(tree: str, name: str) -> str:
    return f"{tree}/{name}"


def _started_again(roots: Mapping[str, Element], main: str) -> set[str]:
    """The trees that may start more than once in a run."""
    found: set[str] = set()
    seen: set[tuple[str, bool]] = set()
    todo = [(main, False)]
    while todo:
        place = todo.pop()
        if place in seen or place[0] not in roots:
            continue
        seen.add(place)
        tree, again = place
        if again:
            found.add(tree)
        todo += _uses(roots[tree], again)
    return found


def _uses(element: Element, again: bool) -> Iterator[tuple[str, bool]]:
    """The trees used below a node, and whether each may start more than once."""
    name = model.node_id(element)
    if name in model.SUBTREES:
        yield element.get("ID"), again
    for child in element.children:
        yield from _uses(child, again or name in model.RESTARTING)
