"""The built-in tools as plans see them: their names, and what they take where a model calls them.

A task may give ``std.echo`` and ``std.fail`` more than a model may; what they do is in ``agentflow.tools.builtin``.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.core.plan import ToolSpec
from agentflow.core.types import parse

PREFIX = "std."


def _spec(name: str, takes: str, description: str) -> ToolSpec:
    return ToolSpec(
        name=name, kind="builtin", code="", timeout_ms=None, memory_bytes=0, cpu=0.0, output_bytes=0, price_micro=0,
        inputs={takes: parse("string")}, description=description,
    )  # fmt: skip


BUILTIN_TOOLS: Mapping[str, ToolSpec] = {
    spec.name: spec
    for spec in (
        _spec(
            "std.calc", "expression",
            "Works out an expression in CEL, e.g. 17 * 23 or double(7) / 2.0: write all numbers of one expression with"
            " a decimal point, or none; a / of numbers without one cuts the fraction off.",
        ),
        _spec("std.echo", "text", "Gives back what it is given."),
        _spec("std.fail", "message", "Fails, and says why."),
    )
}  # fmt: skip


def offered(name: str) -> str:
    """The name by which a model calls a built-in tool: models' APIs take no points in names."""
    return name.replace(".", "_")
