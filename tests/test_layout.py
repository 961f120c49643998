"""The house keeps its shape: who may import what, and what a function's folder holds.

Layers and the settings are contracts of import-linter in pyproject.toml (`make check`); here is what those cannot
say: lists of what is allowed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
FUNCTIONS = ("plan", "dispatch", "invoke_llm", "run_tool", "account_cost", "api")

# No clock, randomness, environment or I/O: nothing here has any. CEL and persistent maps are the libraries.
CORE_MAY_IMPORT = {
    "__future__", "abc", "bisect", "cel_expr_python", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "difflib", "enum", "functools", "hashlib", "heapq", "immutables", "itertools", "json", "math",
    "operator", "re", "string", "types", "typing", "uuid",
}  # fmt: skip

# As pure as core, whose plans it draws.
PICTURE_MAY_IMPORT = {
    "__future__", "bisect", "collections", "dataclasses", "html", "itertools", "typing", "unicodedata",
}  # fmt: skip

# Where each library is at home; one that is not listed may be imported anywhere above core.
HOMES = {
    "boto3": {"archive", "models", "secrets"},
    "cloudevents": {"wire"},
    "docker": {"sandbox"},
    "functions_framework": {"runtime"},
    "genai_prices": {"models"},
    "nats": {"bus", "runtime"},
    "openai": {"models"},
    "opentelemetry": {"observe"},
    "prometheus_client": {"observe"},
    "psycopg": {"store", "runtime"},
    "psycopg_pool": {"store"},
    "rich": {"cli", "terminal"},
    "starlette": {"control", "runtime"},
    "tokenizers": {"models"},
    "typer": {"cli", "terminal"},
    "uvicorn": {"runtime"},
    "yaml": {"wire"},
}


@cache
def imports() -> frozenset[tuple[str, str]]:
    """(package of ours, top-level module it imports), imports inside functions included."""
    graph = grimp.build_graph("agentflow", include_external_packages=True, cache_dir=None)
    return frozenset(
        (f"{module}.".split(".")[1], imported.split(".")[0])
        for module in graph.modules
        if module.split(".")[0] == "agentflow"
        for imported in graph.find_modules_directly_imported_by(module)
    )


def third_party() -> set[tuple[str, str]]:
    return {
        (ours, other) for ours, other in imports() if other not in {*sys.stdlib_module_names, "agentflow"}
    }


def test_core_imports_values_maps_and_cel_only() -> None:
    found = {other for ours, other in imports() if ours == "core"} - {"agentflow"}
    assert "cel_expr_python" in found
    assert found - CORE_MAY_IMPORT == set()


def test_pictures_are_drawn_from_values() -> None:
    found = {other for ours, other in imports() if ours == "picture"} - {"agentflow"}
    assert found == PICTURE_MAY_IMPORT


def test_libraries_are_used_where_they_are_at_home() -> None:
    astray = {(ours, other) for ours, other in third_party() if other in HOMES and ours not in HOMES[other]}
    assert astray == set()


def test_every_library_imported_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [line for extra in extras.keys() - {"dev", "build"} for line in extras[extra]]
    declared = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in [*project["dependencies"], *optional]}
    makers = packages_distributions()
    undeclared = {
        other
        for _, other in third_party()
        if not declared & {name.lower().replace("_", "-") for name in makers.get(other, [other])}
    }
    assert undeclared == set()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_one_short_file(name: str) -> None:
    # A second module beside main.py would be shared by accident with other functions in the same process.
    folder = ROOT / "functions" / name
    assert [path.name for path in folder.glob("**/*.py")] == ["main.py"]
    assert len((folder / "main.py").read_text().splitlines()) <= 25


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_locks_have_hashes_and_name_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|--index|--find-links|file:", text)
    pins = re.split(r"\n(?=[a-z0-9])", text)
    assert len(pins) > 50
    assert [pin for pin in pins[1:] if "--hash=sha256:" not in pin] == []


def test_the_locks_cover_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for name, wanted in (
        ("requirements.lock", [*project["dependencies"], *extras["build"]]),
        ("requirements-dev.lock", [*project["dependencies"], *extras["build"], *extras["dev"]]),
    ):
        locked = set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / name).read_text(), re.MULTILINE))
        asked = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in wanted}
        assert asked - locked == set(), f"{name} is behind pyproject.toml: make lock"


@pytest.mark.xdist_group("together")
def test_tests_of_a_group_stay_together(request: pytest.FixtureRequest) -> None:
    """xdist knows a group by what it adds to a test's name, and splits groups with a pytest that does not take that."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@together") or not grouped
