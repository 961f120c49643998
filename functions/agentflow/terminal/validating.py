"""``agentflow validate``: what can be known of workflow files before they run, for people, programs and GitHub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

from agentflow.core import proof, worst
from agentflow.core.bound import Bound
from agentflow.core.explore import Explored, explore
from agentflow.core.plan import Plan
from agentflow.core.planner import advance
from agentflow.errors import Invalid, Problem, Rejected
from agentflow.models.script import SUFFIX as SCRIPT
from agentflow.models.script import read_script
from agentflow.terminal.loading import is_python, parts, reviewed
from agentflow.terminal.progress import dollars
from agentflow.wire.document_text import lines

MODEL_CHECK_SECONDS = 10
_LINE = re.compile(r"line ([0-9]+): ")
_LINE_BUILT = re.compile(r"([^:]*\.py):([0-9]+): ")


@dataclass(slots=True)
class Report:
    """What is said of one file. ``plan`` is None when there are errors, or when it holds ``rules`` of the scripted
    model instead."""

    file: str
    plan: Plan | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    places: dict[str, int] = field(default_factory=dict)
    explored: Explored | None = None
    rules: int | None = None

    def line(self, problem: Problem) -> int:
        """The line of the file that the problem is about, 0 where that is not known."""
        if said := self.named_line(problem):
            return said
        path = problem.path
        while path and path not in self.places:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.places.get(path, 0) if path else 0

    def named_line(self, problem: Problem) -> int:
        """The line that the message itself begins with, of the text or of the Python that built the part; or 0."""
        if said := _LINE.match(problem.message):
            return int(said[1])
        built = _LINE_BUILT.match(problem.message)
        return int(built[2]) if built and built[1] == parts(self.file)[0] else 0


def validate(files: Sequence[str], *, form: str, strict: bool, model_check: bool = True) -> bool:
    """Check files and print what there is to say; whether all of them may be registered (``strict``: without a
    warning). ``model_check``: go every way that a plan can go, too."""
    reports = [check(file, model_check=model_check) for file in files]
    for report in reports:
        for line in FORMS[form](report):
            print(line)
    return not any(report.problems or (strict and report.warnings) for report in reports)


def check(file: str, *, model_check: bool = True) -> Report:
    """The report on one file; one that cannot be read is a problem like any other."""
    python = is_python(file)
    if file.endswith(SCRIPT):
        return _script(file)
    try:
        checked = reviewed(file)
    except Rejected as refusal:
        problems = refusal.problems if isinstance(refusal, Invalid) else (refusal.problem,)
        return Report(file, problems=problems, places={} if python else _places(file))
    until = monotonic() + MODEL_CHECK_SECONDS
    explored = explore(checked.plan, advance, going=lambda: monotonic() < until) if model_check else None
    found = proof.problems(checked.plan, explored) if explored is not None else []
    errors = tuple(problem for problem in found if problem.severity == "error")
    warnings = (*checked.warnings, *(problem for problem in found if problem.severity == "warning"))
    places = _places(file) if (errors or warnings) and not python else {}
    plan = None if errors else checked.plan
    return Report(file, plan, errors, warnings, places, explored)


def _script(file: str) -> Report:
    """The report on a file of rules for the scripted model, which is no workflow."""
    try:
        return Report(file, rules=len(read_script(Path(file))))
    except Invalid as refusal:
        problems = [
            replace(problem, path=problem.path.removeprefix(file).lstrip(".: ")) for problem in refusal.problems
        ]
        return Report(file, problems=tuple(problems), places=_places(file))


def bounds(plan: Plan) -> dict[str, Bound]:
    """The worst case: steps, calls, and cost (micro-dollars) where the document names prices."""
    found = {"steps": worst.steps(plan), "calls": worst.calls(plan)}
    cost = worst.cost(plan, worst.declared_cost(plan))
    return {**found, "cost_micro": cost} if cost.most else found


def _places(file: str) -> dict[str, int]:
    try:
        return lines(Path(file).read_bytes())
    except OSError:
        return {}


def _text(report: Report) -> Iterator[str]:
    plan = report.plan
    if report.rules is not None:
        yield f"{report.file} is valid: {report.rules} rules of the scripted model"
    elif plan is None:
        yield f"{report.file} is not valid:"
    else:
        tasks = len(plan.document["tasks"])
        yield f"{report.file} is valid: {plan.name} ({plan.kind}), {tasks} tasks, hash {plan.hash[:12]}"
        for name, bound in bounds(plan).items():
            yield f"  {name.removesuffix('_micro')}: at most {_most(name, bound)}"
    if report.explored is not None:
        yield f"  model check: {_explored(report.explored)}"
    for problem in (*report.problems, *report.warnings):
        line = report.line(problem)
        place = f"line {line}: " if line and not report.named_line(problem) else ""
        yield f"  {problem.severity}: {place}{problem}"


def _explored(explored: Explored) -> str:
    if not explored.states:
        return f"not possible: {explored.limit}"
    so_far = f"{explored.states:,} states"
    if not explored.complete:
        return f"{so_far}, not all: {explored.limit}"
    found = "no run is stuck, every run can end, the steps suffice"
    return f"{so_far}: {f'{len(explored.findings)} findings' if explored.findings else found}"


def _most(name: str, bound: Bound) -> str:
    amount: Callable[[int], str] = dollars if name == "cost_micro" else str
    text, most = bound.text(amount), amount(bound.most)
    return most if text == most else f"{most} = {text}"


def _json(report: Report) -> Iterator[str]:
    said: dict[str, Any] = {"file": report.file}
    if report.plan is not None:
        said |= {"name": report.plan.name, "kind": report.plan.kind, "hash": report.plan.hash}
    if report.rules is not None:
        said["rules"] = report.rules
    said["problems"] = [_entry(report, problem) for problem in report.problems]
    said["warnings"] = [_entry(report, problem) for problem in report.warnings]
    found = bounds(report.plan) if report.plan is not None else {}
    if report.explored is not None:
        said["model_check"] = {"states": report.explored.states, "complete": report.explored.complete}
    said["bounds"] = {name: {"most": bound.most, "expression": str(bound)} for name, bound in found.items()}
    yield json.dumps(said, ensure_ascii=False)


def _entry(report: Report, problem: Problem) -> dict[str, Any]:
    line = report.line(problem)
    shown = {"path": problem.path, "message": problem.message, "mend": problem.mend, "code": problem.code}
    return {**shown, "line": line} if line else shown


def _github(report: Report) -> Iterator[str]:
    """Workflow commands, which GitHub shows beside the lines of a change."""
    for problem in (*report.problems, *report.warnings):
        line = report.line(problem)
        place = f"file={_property(parts(report.file)[0])}" + (f",line={line}" if line else "")
        yield f"::{problem.severity} {place},title={_property(problem.code)}::{_data(str(problem))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMS: dict[str, Callable[[Report], Iterator[str]]] = {"text": _text, "json": _json, "github": _github}
