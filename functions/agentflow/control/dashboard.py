"""The dashboard: three files that a browser asks the rest of the API with. They hold nothing that is anybody's."""

from __future__ import annotations

import functools
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

PAGES = Path(__file__).parent / "pages"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
}
"""What is served where, and as what."""

# A tool's output is shown as text; should a line of it ever become markup, there is nothing that it could load or run.
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


async def serve_file(request: Request) -> Response:
    """One of the files, by its path."""
    path = request.url.path
    request.scope["agentflow"].route = path
    name, kind = FILES[path]
    return Response(_content(name), headers=HEADERS, media_type=kind)


@functools.cache
def _content(name: str) -> bytes:
    return (PAGES / name).read_bytes()
