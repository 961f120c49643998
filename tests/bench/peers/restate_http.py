"""As little HTTP as asking Restate takes: the client shares the cores with what is measured."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any


class Connection:
    """One kept-alive HTTP/1.1 connection to a unix socket; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, socket: Path) -> Connection:
        return cls(*await asyncio.open_unix_connection(str(socket)))

    async def post(self, path: str, content: Any = None) -> Any:
        """The answer's JSON. Raises ``OSError`` for an answer that is not 2xx."""
        body = b"" if content is None else json.dumps(content).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: restate\r\naccept: application/json\r\n"
        if body:
            head += "content-type: application/json\r\n"
        self._writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        status, length = self._head(await self._reader.readuntil(b"\r\n\r\n"))
        answer = await (self._chunks() if length is None else self._reader.readexactly(length))
        if not 200 <= status < 300:
            raise OSError(f"{path}: {status}: {answer.decode(errors='replace')}")
        return json.loads(answer)

    @staticmethod
    def _head(text: bytes) -> tuple[int, int | None]:
        lines = text.decode("ascii").lower().split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        length = fields.get("content-length")
        return int(lines[0].split()[1]), None if length is None else int(length)

    async def _chunks(self) -> bytes:
        answer = b""
        while size := int(await self._reader.readline(), 16):
            answer += (await self._reader.readexactly(size + 2))[:size]
        await self._reader.readline()
        return answer
