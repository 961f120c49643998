"""Expressions and assignments of other languages as trees: the subset that ECMAScript and BehaviorTree.CPP's scripts
have in common, with what each adds to it. What they mean in CEL is written in ``cel_text``; ``parsing`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class Unreadable(ValueError):
    """A text that is no expression of the subset; the message says what stands in the way."""


class Illegal(Unreadable):
    """A text that has no value in its own language either, whenever it is looked at."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, int, float, bool or None."""

    value: Any


@dataclass(frozen=True, slots=True)
class Name:
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """``of.key`` (key a text), or ``of[key]``."""

    of: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Unary:
    """``!``, ``-`` or ``typeof``."""

    op: str
    of: Node


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Choice:
    condition: Node
    then: Node
    other: Node


@dataclass(frozen=True, slots=True)
class Call:
    function: Node
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Items:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Table:
    entries: tuple[tuple[str, Node], ...]


Node = Literal | Name | Member | Unary | Binary | Choice | Call | Items | Table


@dataclass(frozen=True, slots=True)
class Assign:
    """``target`` gets the value; ``op`` is ``=`` (an ``x += 1`` is read as ``x = x + 1``) or ``:=``."""

    target: Node
    op: str
    value: Node
