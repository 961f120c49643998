"""The tasks that stand for what the states of an SCXML document invoke."""

from __future__ import annotations

from typing import Any

from agentflow.imports.findings import Findings
from agentflow.imports.naming import field_name, task_name
from agentflow.imports.scxml_content import Content, Place
from agentflow.imports.scxml_states import State
from agentflow.imports.writing import Said

Table = dict[str, Any]


class Tasks:
    """The tasks by name (``made``), each a stub: what does it the document does not say."""

    def __init__(self, content: Content, findings: Findings) -> None:
        self.content = content
        self.findings = findings
        self.made: Table = {}

    def of(self, state: State) -> str:
        """The task that stands for what a state invokes."""
        invokes = state.element.all("invoke")
        at = invokes[0]
        if len(invokes) > 1:
            self.findings.refuse(invokes[1], "a state runs one task", "put each into a region of its own")
        for child in at.all("finalize", "content"):
            self.findings.leave_out(child, "is not read", "write the task, and keep its result in a variable")
        wanted = at.get("src").rstrip("/").rpartition("/")[2].partition(".")[0] or at.get("id") or f"{state.id}-task"
        base = self.findings.named(task_name, wanted, at, "task")
        name, number = base, 1
        while name in self.made:
            number += 1
            name = f"{base}-{number}"
        what = " ".join(filter(None, (at.get("type"), at.get("src"))))
        stands_for = f"TODO: stands for <invoke> {what}".strip()[:200]
        task: Table = {"kind": "tool", "use": "std.echo", "description": stands_for}
        given = {}
        for param in at.all("param"):
            source = param.get("expr") or param.get("location")
            given[field_name(param.get("name"))] = Said(self.content.read(param, source, Place(state)), param)
        for data in at.get("namelist").split():
            given[field_name(data)] = Said(self.content.read(at, data, Place(state)), at)
        if given:
            task["in"] = given
        self.made[name] = task
        self.findings.note(at, f"is the task {name!r}, which does nothing yet", "say in `use` what does it")
        return name
