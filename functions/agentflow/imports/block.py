"""What a block of assignments comes to, when all are made at once: each value is written with what was assigned before
it put in, and a value that is only assigned under a condition is a choice between the new one and the old."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.imports.syntax import (
    Binary,
    Call,
    Choice,
    Items,
    Literal,
    Member,
    Name,
    Node,
    Table,
    Unary,
    Unreadable,
)

MAX_PARTS = 300
TRUE = Literal(True)
FALSE = Literal(False)
_RELATIONS = ("==", "!=", "<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Raised:
    """An event that a block raises where ``when`` holds. ``data`` is what it carries: None is nothing; ``late``: it
    comes after an assignment, which may have no value."""

    event: str
    when: Node = TRUE
    data: Node | None = None
    late: bool = False


@dataclass(slots=True)
class Block:
    """``sets``: each variable's value after the block, over the values before it. ``raises``: events in their order."""

    sets: dict[str, Node] = field(default_factory=dict)
    raises: list[Raised] = field(default_factory=list)

    def seen(self, node: Node) -> Node:
        """``node`` as it is at this place in the block, over the values before it."""
        made = put(node, self.sets)
        if parts(made) > MAX_PARTS:
            raise Unreadable("becomes too long when the assignments before it are put in")
        return made

    def assign(self, name: str, value: Node, when: Node = TRUE) -> None:
        """Set a variable, where ``when`` holds (already seen from here)."""
        value = self.seen(value)
        if when != TRUE:
            value = Choice(when, value, self.sets.get(name, Name(name)))
            if parts(value) > MAX_PARTS:
                raise Unreadable("is assigned under too many conditions")
        self.sets[name] = value

    def raised(self, event: str, when: Node = TRUE, data: Node | None = None) -> None:
        """Raise an event where ``when`` holds (already seen from here)."""
        if when != FALSE:
            seen = None if data is None else self.seen(data)
            self.raises.append(Raised(event, when, seen, late=bool(self.sets)))


def both(one: Node, other: Node) -> Node:
    """``one && other``, constants worked out."""
    if FALSE in (one, other):
        return FALSE
    if one == TRUE:
        return other
    return one if other == TRUE else Binary("&&", one, other)


def negated(node: Node) -> Node:
    if node in (TRUE, FALSE):
        return FALSE if node == TRUE else TRUE
    if isinstance(node, Unary) and isinstance(node.of, Binary) and node.of.op in _RELATIONS:
        return node.of
    return Unary("!", node)


def folded(node: Node) -> Node:
    """``node`` where a constant condition in it decides."""
    if isinstance(node, Binary) and node.op == "&&" and {node.left, node.right} & {TRUE, FALSE}:
        return both(node.left, node.right)
    if isinstance(node, Binary) and node.op == "||" and {node.left, node.right} & {TRUE, FALSE}:
        return negated(both(negated(node.left), negated(node.right)))
    if isinstance(node, Unary) and node.op == "!":
        return negated(node.of)
    if isinstance(node, Choice) and node.condition in (TRUE, FALSE):
        return node.then if node.condition == TRUE else node.other
    return node


def names(node: Node) -> set[str]:
    """The names that ``node`` reads."""
    if isinstance(node, Name):
        return {node.name}
    return set().union(*(names(child) for child in children(node)))


def parts(node: Node) -> int:
    """How many parts ``node`` has; values that were put in are small already."""
    return 1 + sum(parts(child) for child in children(node))


def children(node: Node) -> tuple[Node, ...]:
    if isinstance(node, Member):
        return node.of, node.key
    if isinstance(node, Unary):
        return (node.of,)
    if isinstance(node, Binary):
        return node.left, node.right
    if isinstance(node, Choice):
        return node.condition, node.then, node.other
    if isinstance(node, Call):
        return node.function, *node.arguments
    if isinstance(node, Items):
        return node.items
    return tuple(entry for _, entry in node.entries) if isinstance(node, Table) else ()


def rebuilt(node: Node, new: tuple[Node, ...]) -> Node:
    """``node`` with other children."""
    if isinstance(node, Member):
        return Member(*new)
    if isinstance(node, Unary):
        return Unary(node.op, *new)
    if isinstance(node, Binary):
        return Binary(node.op, *new)
    if isinstance(node, Choice):
        return Choice(*new)
    if isinstance(node, Call):
        return Call(new[0], new[1:])
    if isinstance(node, Items):
        return Items(new)
    if isinstance(node, Table):
        return Table(tuple((key, made) for (key, _), made in zip(node.entries, new, strict=True)))
    return node


def put(node: Node, values: dict[str, Node]) -> Node:
    """``node`` with values in place of names."""
    if isinstance(node, Name):
        return values.get(node.name, node)
    below = children(node)
    return rebuilt(node, tuple(put(child, values) for child in below)) if below and values else node
