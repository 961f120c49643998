"""A client of the API: asks again as long as it is worth asking again, and minds what it must never be told."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from chaos.violation import Violation

PASSING = frozenset({408, 429, 500, 502, 503, 504})
PATIENCE_S = 120.0


@dataclass(slots=True)
class Tenant:
    """A tenant, its API key, and the mark that all its data carries and no other's may."""

    id: UUID
    key: str
    mark: str


class Client:
    """Asks any of the processes that carry the API, as behind a load balancer."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._http = httpx.AsyncClient(timeout=12, limits=httpx.Limits(max_connections=200))
        self.violations: list[Violation] = []
        self.retries = 0
        self.internal_errors = 0  # answers of 500: a fault that nobody has thought of

    @property
    def doors(self) -> int:
        """How many processes there are to ask."""
        return len(self.urls)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(
        self, tenant: Tenant, method: str, path: str, good: set[int], **more: Any
    ) -> httpx.Response:
        """One request, repeated while it fails in a way that passes. Any other answer is a violation."""
        headers = {"Authorization": f"Bearer {tenant.key}", **more.pop("headers", {})}
        pause, until, said = 0.1, time.monotonic() + PATIENCE_S, ""
        while True:
            try:
                url = random.choice(self.urls) + path
                answer = await self._http.request(method, url, headers=headers, **more)
                said = f"{answer.status_code} {answer.text[:300]}"
                if answer.status_code in good:
                    return answer
                self.internal_errors += answer.status_code == 500
                if answer.status_code not in PASSING:
                    self.violations.append(Violation(2, f"{method} {path}: {said}"))
                    return answer
            except httpx.HTTPError as fault:
                said = repr(fault)
            if time.monotonic() > until:
                raise TimeoutError(f"{method} {path} has failed for {PATIENCE_S:g} s, at last with {said}")
            self.retries += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
