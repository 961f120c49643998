"""How the command line prints: JSON for machines, tables for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 250
"""Columns where there is no terminal: a line that is piped on should not be broken."""


def console(*, stderr: bool = False) -> Console:
    """The terminal. Made anew each time: tests and pipes replace sys.stdout."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


def print_json(value: Any) -> None:
    """One JSON document on stdout, one line."""
    print(json.dumps(value, ensure_ascii=False))


def utc(moment: str | None) -> str:
    """One of the API's times as people read it, to the second; '' where there is none."""
    if moment is None:
        return ""
    return f"{datetime.fromisoformat(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """A table; ``empty`` says what it means that there are no rows. Values are shown as text, never as markup."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not rows:
        out.print(empty, markup=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)  # the first is what one copies
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else Text(str(value)) for value in row))
    out.print(table)
