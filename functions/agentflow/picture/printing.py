"""A plan's picture in the format that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agentflow.core.plan import Plan
from agentflow.picture.diagram import Diagram, Mark
from agentflow.picture.machines import machine_diagram
from agentflow.picture.mermaid import mermaid
from agentflow.picture.svg import svg
from agentflow.picture.trees import tree_diagram

Format = Literal["mermaid", "svg"]
NO_MARKS: Mapping[str, Mark] = {}


def picture(plan: Plan, form: Format, marks: Mapping[str, Mark] = NO_MARKS) -> bytes:
    """The picture in UTF-8; ``marks`` say where a run is (see ``position``)."""
    diagram = diagram_of(plan, marks)
    return svg(diagram) if form == "svg" else (mermaid(diagram) + "\n").encode()


def diagram_of(plan: Plan, marks: Mapping[str, Mark] = NO_MARKS) -> Diagram:
    """What is in the picture."""
    if plan.machine is not None:
        return machine_diagram(plan.name, plan.machine, marks)
    assert plan.tree is not None
    return tree_diagram(plan.name, plan.tree, marks)
