"""The dashboard in a browser: Chromium, on the API of a real host; what is looked at is the page that came of it."""

from __future__ import annotations

import asyncio
import html
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from house import House

from agentflow.runtime.serve import http_server
from agentflow.store.admin import issue_key
from agentflow.store.budgets import set_budget

Require = Callable[[object, str], None]
HOSTILE = "<img src=x onerror=\"document.title='run over'\"><script>document.title='run over'</script>"
SAY = {
    "agentflow": "plan/v1", "name": "say", "kind": "bt", "limits": {"steps": 9, "usd": 1}, "input": {"text": "string"},
    "vars": {"said": "string"}, "output": {"said": "said"},
    "tasks": {
        "echo": {"kind": "tool", "use": "std.echo", "in": {"said": "text"}, "out": {"said": "string"}, "usd": 0.25},
    },
    "root": {"task": "echo", "set": {"said": "result.said"}},
}  # fmt: skip
BREAK = SAY | {
    "name": "breaks", "output": {},
    "tasks": {"echo": {"kind": "tool", "use": "std.fail", "in": {"message": "text"}, "out": {"said": "string"}}},
}  # fmt: skip
ASK = SAY | {
    "name": "asks", "output": {},
    "tasks": {"echo": {"kind": "human", "use": "review", "in": {"said": "text"}, "out": {"said": "string"}}},
}  # fmt: skip


class Browser:
    """Opens a page anew, waits for what it asks, and gives what it shows then."""

    def __init__(self, url: str, key: str, profile: Path) -> None:
        self._url, self._key, self._profile = url, key, profile

    async def text(self, page: str) -> str:
        """What a person reads there."""
        shown = re.search(r"<main[^>]*>(.*)</main>", await self.markup(page), re.DOTALL)
        assert shown is not None
        return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown[1])))

    async def markup(self, page: str, key: str | None = None) -> str:
        """The page as it has become."""
        process = await asyncio.create_subprocess_exec(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={self._profile}", "--virtual-time-budget=10000", "--dump-dom",
            f"{self._url}/#key={quote(self._key if key is None else key)}&page={quote(page)}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        printed, _ = await asyncio.wait_for(process.communicate(), 60)
        return printed.decode()


@asynccontextmanager
async def opened(house: House, host: Any, folder: Path) -> AsyncIterator[Browser]:
    key = await issue_key(house.database.admin, house.tenant, host.settings.key_pepper)
    async with http_server(host.http(), "127.0.0.1", 0) as port:
        yield Browser(f"http://127.0.0.1:{port}", str(key), folder / "chromium")


async def test_what_a_tenant_does_is_seen_in_a_browser(house: House, require: Require, tmp_path: Path) -> None:
    require(shutil.which("chromium"), "chromium: apt-get install chromium")
    for document in (SAY, BREAK, ASK):
        await house.register(document)
    await set_budget(house.database.admin, house.tenant, "tenant", "total", limit_micro=1_000_000)
    async with house.host() as host, opened(house, host, tmp_path) as browser:
        said = await house.ended(await house.submit(host, "say", {"text": HOSTILE}))
        broken = await house.ended(await house.submit(host, "breaks", {"text": "no more"}))
        await house.submit(host, "asks", {"text": "may I?"})

        runs = await browser.text("/runs")
        assert runs.count("say@1 succeeded") == runs.count("breaks@1 failed") == runs.count("asks@1 running") == 1
        assert "$0.250000" in runs
        assert "say@1" not in await browser.text("/runs?status=failed")

        markup = await browser.markup(f"/runs/{said['run_id']}")
        assert "<title>AgentFlow</title>" in markup
        images = re.findall(r"<img [^>]*src=\"(.{16})", markup)
        assert images == ["data:image/svg+x"], "the plan, and nothing of the input"
        run = await browser.text(f"/runs/{said['run_id']}")
        assert HOSTILE.replace('"', '\\"') in run, "as text"
        assert "$0.250000 of $1.000000" in run
        assert "no more" in await browser.text(f"/runs/{broken['run_id']}")

        assert "say@1" in await browser.text("/workflows")
        assert '"use": "std.echo"' in await browser.text("/workflows/say")
        assert "may I?" in await browser.text("/tasks")
        assert "std.echo $0.250000 1" in await browser.text("/costs?by=tool&period=total")
        assert "tenant total $1.000000 $0.250000 $0.000000 $0.750000" in await browser.text("/budgets")
        assert "Nothing is parked." in await browser.text("/parked")
        assert "there is no such run" in (await browser.text("/runs/nothing")).lower()
        assert "Your API key" in await browser.markup("/runs", "wrong")
