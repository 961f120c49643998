"""The dashboard's files: served to everybody, as they hold nothing, and so that a browser runs nothing else."""

from __future__ import annotations

import re

import pytest

from agentflow.control.dashboard import FILES, PAGES
from agentflow.control.routes import ROUTES

from .world import World

SCRIPT = (PAGES / "dashboard.js").read_text()


@pytest.mark.parametrize(("path", "kind"), [(path, kind) for path, (_, kind) in FILES.items()])
async def test_a_file_is_served_without_a_key(world: World, path: str, kind: str) -> None:
    answer = await world.a.http.get(path, headers={"authorization": ""})
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content == (PAGES / FILES[path][0]).read_bytes()
    policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert (await world.a.http.post(path)).status_code == 405


def test_the_page_has_nothing_that_its_policy_would_not_run() -> None:
    page = (PAGES / "index.html").read_text()
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="dashboard.js">']
    assert not re.search(r"<style|\bstyle=|\bon[a-z]+=|https?:|javascript:", page)
    assert {match[1] for match in re.finditer(r'(?:href|src)="([^"#]+)"', page)} == {
        "data:,", "dashboard.css", "dashboard.js",
    }  # fmt: skip


def test_what_others_have_written_never_becomes_markup() -> None:
    unsafe = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|https?:"
    assert not re.search(unsafe, SCRIPT)


def test_what_it_asks_for_is_there() -> None:
    asked = set(re.findall(r"/v1/([a-z]+)", SCRIPT))
    assert asked == {"runs", "workflows", "tasks", "costs", "budgets", "parked"}
    assert asked <= {route.path.split("/")[2] for route in ROUTES}
