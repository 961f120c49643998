"""The statements of ``checker.sql`` by name, run as the superuser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import orjson
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
Row = dict[str, Any]


def _load() -> dict[str, str]:
    parts = _NAME.split(Path(__file__).with_name("checker.sql").read_text())[1:]
    return {
        name: "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().rstrip(";")
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


SQL = _load()


class Statements:
    """One connection that runs them."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._conn = conn

    @classmethod
    async def connect(cls, dsn: str) -> Statements:
        conn = await psycopg.AsyncConnection.connect(dsn, autocommit=True, row_factory=dict_row)
        set_json_loads(orjson.loads, conn)
        return cls(conn)

    async def close(self) -> None:
        await self._conn.close()

    async def rows(self, name: str, /, *, table: str = "", **params: Any) -> list[Row]:
        """The rows of a statement; ``table`` fills its ``{table}``."""
        cursor = await self._conn.execute(SQL[name].replace("{table}", table).encode(), params or None)
        return await cursor.fetchall()

    async def run(self, name: str, /, **params: Any) -> None:
        """A statement without rows."""
        await self._conn.execute(SQL[name].encode(), params or None)

    async def rollback(self) -> None:
        await self._conn.execute(b"rollback")
