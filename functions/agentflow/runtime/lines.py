"""Lines: the connections that requests are posted on, one request on each at a time, kept while they are of use.

httpx's own pool looks at every connection there is for every request. With the hundreds that wait for models and tools
a request would cost more than all that it leads to; here its cost is the same however many others are out.
"""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import httpx

KEPT = 512  # idle, to each server
KEPT_S = 10.0  # functions close what has been idle for five
ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1)


class _Idle(NamedTuple):
    line: httpx.AsyncHTTPTransport
    since: float


class Lines(httpx.AsyncBaseTransport):
    """Connections to any number of servers, for ``httpx.AsyncClient(transport=...)``; answers are read as a whole."""

    def __init__(self) -> None:
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._idle: dict[tuple[str, str, int | None], deque[_Idle]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        idle = self._idle.setdefault((request.url.scheme, request.url.host, request.url.port), deque())
        # The one that was used last: it is the likeliest to be still open.
        line = idle.pop().line if idle else httpx.AsyncHTTPTransport(self._tls, limits=ONE, trust_env=False)
        try:
            answer = await line.handle_async_request(request)
            await answer.aread()
        except BaseException:
            await line.aclose()
            raise
        now = time.monotonic()
        idle.append(_Idle(line, now))
        while len(idle) > KEPT or now - idle[0].since > KEPT_S:
            await idle.popleft().line.aclose()
        return answer

    async def aclose(self) -> None:
        """Close all that are idle; who has a request out closes its own."""
        while self._idle:
            _, idle = self._idle.popitem()
            for each in idle:
                await each.line.aclose()
