"""What an import could not say, with line and element: what it makes no difference to leave out (noted), what is
missing in the plan (left out), and what would change its meaning (refused)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import Invalid, Problem
from agentflow.imports.naming import TooLong
from agentflow.imports.xml import Element

MAX_FINDINGS = 200


@dataclass(frozen=True, slots=True)
class Imported:
    """A plan/v1 document in the order people write it, and what it does not say. ``left_out`` is what is missing in it,
    ``notes`` what is worth knowing."""

    document: dict[str, Any]
    left_out: tuple[Problem, ...]
    notes: tuple[Problem, ...]


@dataclass(slots=True)
class Findings:
    """What has been found so far."""

    left_out: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)

    def note(self, at: Element | None, message: str, mend: str = "") -> None:
        """It makes no difference, or not one that the plan could show."""
        _add(self.notes, at, message, mend, "note")

    def leave_out(self, at: Element, message: str, mend: str = "") -> None:
        """Something that the plan does not do."""
        _add(self.left_out, at, message, mend, "left_out")

    def refuse(self, at: Element | None, message: str, mend: str = "") -> None:
        """Something without which the plan would mean something else."""
        _add(self.refused, at, message, mend, "not_in_plan")

    def named(self, write: Callable[[str], str], name: str, at: Element, instead: str) -> str:
        """``name`` written as a plan's; one that is too long is refused."""
        try:
            return write(name)
        except TooLong as fault:
            self.refuse(at, str(fault), "choose a shorter one")
            return instead

    def check(self) -> None:
        """``Invalid`` with everything that was refused."""
        if self.refused:
            raise Invalid([*self.refused, *self.left_out][:MAX_FINDINGS], code="not_imported")


def place(at: Element) -> str:
    """Where an element is, for people."""
    name = next((f" {key}={at.get(key)[:40]!r}" for key in ("id", "ID", "name", "event") if at.get(key)), "")
    return f"line {at.line} <{at.tag}{name}>"


def duration(ms: int) -> str:
    """Milliseconds as a plan writes them."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"


def _add(found: list[Problem], at: Element | None, message: str, mend: str, code: str) -> None:
    problem = Problem(place(at) if at is not None else "", message[:300], mend, code)
    if len(found) < MAX_FINDINGS and problem not in found:
        found.append(problem)
