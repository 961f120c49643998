"""Workflow files for the command line: YAML, JSON, or Python that builds one with ``agentflow.plan``."""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentflow.errors import AgentFlowError, Rejected

if TYPE_CHECKING:
    from agentflow.core.plan import Plan
    from agentflow.plan import Workflow
    from agentflow.wire.document import Checked

SUFFIXES = (".yaml", ".yml", ".json", ".py")


def compile_file(file: str) -> Plan:
    """The plan of a workflow file, with the code of its tools read in; ``Invalid`` names every fault.

    A file of Python is run: it is the caller's own, on the caller's machine. No server does this.
    """
    from agentflow.wire.document import compile_document, load_document_file

    return checked(built(file), file) if is_python(file) else compile_document(load_document_file(Path(file)))


def is_file(workflow: str) -> bool:
    """Whether this names a file, not a registered workflow; ``Rejected`` for a path to nothing."""
    path, _ = parts(workflow)
    if Path(path).is_file():
        return True
    if "/" in path or path.endswith(SUFFIXES):
        raise Rejected("there is no such file", code="no_file", path=path, mend="check the path")
    return False


def is_python(file: str) -> bool:
    """Whether a file builds a workflow: FILE.py, or FILE.py:NAME where it builds several."""
    return parts(file)[0].endswith(".py")


def built(file: str) -> Workflow:
    """The workflow that a file of Python builds."""
    from agentflow.plan import Workflow

    path, name = parts(file)
    found = {key: value for key, value in _run(path).items() if isinstance(value, Workflow)}
    if name:
        found = {key: value for key, value in found.items() if key == name}
    if len({id(workflow) for workflow in found.values()}) == 1:
        return next(iter(found.values()))
    if found:
        known = ", ".join(f"{path}:{key}" for key in found)
        raise Rejected("builds several workflows", code="usage", path=path, mend=f"name one: {known}")
    mend = "assign one to a name of the module: flow = Workflow(...)"
    raise Rejected(f"builds no workflow{f' named {name}' if name else ''}", code="usage", path=path, mend=mend)


def checked(workflow: Workflow, file: str) -> Plan:
    """The plan of a workflow that a file has built; tools' files are beside it."""
    from agentflow.wire.document import with_tool_files

    return workflow.check(with_tool_files(workflow.document(), Path(parts(file)[0]).parent))


def reviewed(file: str) -> Checked:
    """The plan of a workflow file with what can be said against it; ``Invalid`` where it may not be registered."""
    from agentflow.wire.document import Checked, check_document, load_document_file, with_tool_files

    if not is_python(file):
        return check_document(load_document_file(Path(file)))
    workflow = built(file)
    document = with_tool_files(workflow.document(), Path(parts(file)[0]).parent)
    return Checked(workflow.check(document), workflow.warnings(document))


def parts(file: str) -> tuple[str, str]:
    """A file's path, and behind it the workflow's name where FILE.py:NAME gives one."""
    path, behind, name = file.rpartition(".py:")
    return (f"{path}.py", name) if behind else (file, "")


def _run(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise Rejected("there is no such file", code="no_file", path=path, mend="check the path")
    folder = str(Path(path).parent.resolve())
    sys.path.insert(0, folder)  # as `python FILE` does
    try:
        return runpy.run_path(path, run_name="agentflow_workflow")
    except AgentFlowError:
        raise
    except Exception as fault:
        lines = [frame for frame in traceback.extract_tb(fault.__traceback__) if frame.filename == path]
        line = f"line {lines[-1].lineno}: " if lines else ""
        raise Rejected(f"{line}{type(fault).__name__}: {fault}", code="python", path=path) from fault
    finally:
        sys.path.remove(folder)
