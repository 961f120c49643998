""".github: workflows that GitHub takes, that are safe to start, and that name nothing that is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FILES = sorted((GITHUB / "workflows").glob("*.yml"))
BIN = Path(sysconfig.get_path("scripts"))


class Words(yaml.CSafeLoader):
    """`on` is a word here, and not true."""


Words.yaml_implicit_resolvers = {
    first: [each for each in found if each[0] != "tag:yaml.org,2002:bool"]
    for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def workflow(path: Path) -> dict[str, Any]:
    return dict(yaml.load(path.read_text(), Loader=Words))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def checked(*words: str | Path) -> str:
    done = subprocess.run([str(BIN / str(words[0])), *map(str, words[1:])], capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", FILES),
        ("custom.github-workflows-require-timeout", FILES),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_github_takes_it(schema: str, files: list[Path]) -> None:
    assert checked("check-jsonschema", "--builtin-schema", schema, *files) == ""


def test_nothing_in_a_workflow_can_be_made_to_do_something_else() -> None:
    """Unpinned actions, text of strangers in scripts, permissions that are not needed, credentials left behind."""
    assert checked("zizmor", "--offline", "--no-progress", "--quiet", "--persona", "auditor", GITHUB) == ""


def test_an_unsafe_workflow_would_be_found(tmp_path: Path) -> None:
    text = (GITHUB / "workflows" / "images.yml").read_text()
    bad = tmp_path / ".github" / "workflows" / "images.yml"
    bad.parent.mkdir(parents=True)
    text = text.replace("pull_request:", "pull_request_target:")
    bad.write_text(re.sub(r"checkout@\w+ # v4.2.2", "checkout@v4", text))
    said = checked("zizmor", "--offline", "--no-progress", "--persona", "auditor", bad)
    assert "unpinned-uses" in said and "dangerous-triggers" in said


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_may_do_what_it_says_and_nothing_else(path: Path) -> None:
    found = workflow(path)
    assert found["permissions"] == {}
    assert "pull_request_target" not in found["on"] and "workflow_run" not in found["on"]
    for job in found["jobs"].values():
        assert job["permissions"]
        if "pull_request" in found["on"]:
            assert set(job["permissions"].values()) == {"read"} and "secrets." not in path.read_text()
        for step in filter(lambda each: "uses" in each, job["steps"]):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
    assert re.findall(r"uses: \S+$", path.read_text(), re.MULTILINE) == []  # each says which version it is


def test_the_workflow_that_skips_nothing_has_all_commits() -> None:
    """At depth 1 the tests of upgrades and of publishing would be left out."""
    path = GITHUB / "workflows" / "test.yml"
    assert "none skipped" in path.read_text()
    (checkout,) = (step["with"] for step in steps(path) if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["fetch-depth"] == 0
    (job,) = workflow(path)["jobs"].values()
    assert job["env"]["HISTORY"] == "required"
    (kept,) = re.findall(r"--preserve-env=(\S+) bash .ci/run", path.read_text())
    assert "HISTORY" in kept.split(",")


@pytest.mark.parametrize(
    ("given", "code", "said"), [("", 0, "THIS CHECKOUT HAS NO HISTORY"), ("required", 1, "fetch-depth: 0")]
)
def test_a_checkout_without_former_commits_is_told_of(tmp_path: Path, given: str, code: int, said: str) -> None:
    """The lines of .ci/run that look for them, in a repository that has none."""
    text = (ROOT / ".ci" / "run").read_text()
    (lines,) = re.findall(r"^former=.*?^fi$\n(?=bounded)", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "tests" / "chaos").mkdir(parents=True)
    (tmp_path / "tests" / "chaos" / "versions.py").write_text(f'FORMER = "{"0" * 40}"\n')
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    script = f'bounded() {{ shift; "$@"; }}\n{lines}echo "options: ${{PYTEST_ADDOPTS:-}}"'
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "HISTORY": given}, check=False)  # fmt: skip
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert ("not history" in done.stdout) == (code == 0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_workflow_starts_is_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(step["run"] for step in steps(path) if "run" in step)
    made = {word for line in re.findall(r"\bmake ([^\n;&|]+)", text) for word in line.split() if "=" not in word}
    assert made <= targets
    named = set(re.findall(r"(?:\.ci|infra|local|tests)/[\w./-]+", text))
    assert {each for each in named if not (ROOT / each).exists()} == set()
    assert made or named or path.stem == "release"


def test_what_a_repository_has_to_be_told_is_documented() -> None:
    wanted = {name for path in FILES for name in re.findall(r"(?:vars|secrets)\.(\w+)", path.read_text())}
    page = (ROOT / "infra" / "supply-chain" / "README.md").read_text()
    table = re.findall(r"^\| ((?:variable|secret).*?) \|", page, re.MULTILINE)
    assert wanted == set(re.findall(r"`([A-Z_]+)`", " ".join(table)))


def test_dependabot_looks_where_there_is_something() -> None:
    files = {
        "pip": "pyproject.toml", "docker": "Dockerfile", "docker-compose": "compose.yaml", "github-actions": ".github",
    }  # fmt: skip
    found = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    assert {each["package-ecosystem"] for each in found} == files.keys()
    for each in found:
        for folder in each.get("directories") or [each["directory"]]:
            assert (ROOT / folder.lstrip("/") / files[each["package-ecosystem"]]).exists()
