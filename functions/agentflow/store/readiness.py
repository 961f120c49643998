"""Whether the database can be worked with: one line for what is wrong with it, and how to mend that.

All of it may be mended from outside while a host waits, so every fault is a ``RetryLater``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import errors as pg

from agentflow.errors import RetryLater
from agentflow.wire.place import contracts_path

CONTRACT = "-- contract:"
"""How a migration begins that takes away what former versions use; it goes on with the last of their migrations."""
ALONE = "-- alone:"
"""How a migration of one statement begins that is applied without a transaction."""
MIGRATE = "run `agentflow migrate` with this version"
# What the server or libpq says, in the order it is looked for: connection errors carry no code.
MENDS = (
    ("password", "put the role's password where PGPASSFILE points to; `agentflow init` sets both"),
    ("no pg_hba.conf entry", "let this host in, in PostgreSQL's pg_hba.conf"),
    ("does not exist", MIGRATE),
    # libpq does not say why it did not verify.
    (
        "certificate verify failed",
        "renew it where its time is over; where another has signed it, correct sslrootcert in AGENTFLOW_DATABASE_URL",
    ),
    ("certificate", "renew it, or correct sslmode and sslrootcert in AGENTFLOW_DATABASE_URL"),
    ("starting up", "wait for it"),
    ("too many", "raise max_connections, or run fewer hosts"),
)
RESTORED = (
    "this database was put back from a backup, or moved (when nothing works on the former one any more, run"
    " `agentflow restored` once)"
)
REACH = "start it, or correct AGENTFLOW_DATABASE_URL"


def migrations() -> list[Path]:
    """The migration files in order."""
    return sorted((contracts_path() / "schemas" / "postgres").glob("[0-9]*.sql"))


def unready(fault: psycopg.Error) -> RetryLater:
    """What a fault at start means, in one line."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if "FATAL" in line), lines[0] if lines else type(fault).__name__)
    mend = next((mend for words, mend in MENDS if words in reason), REACH)
    return RetryLater(f"PostgreSQL: {reason} ({mend})", after=0.2)


class Applied(NamedTuple):
    """A migration that the database has. ``contract``: it took away what former versions use. ``elsewhere``: it was
    applied on another server, and nobody has said since that the database lives on this one."""

    name: str
    contract: bool = False
    elsewhere: bool = False


def check_migrations(applied: Iterable[Applied]) -> None:
    """Whether all that this program knows was applied, and here. More is fine, as the next version is being rolled out,
    unless it takes away what this one uses."""
    found = list(applied)
    missing = sorted({path.name for path in migrations()} - {each.name for each in found})
    if missing:
        raise outdated(f"it lacks {', '.join(missing)}")
    if gone := contracts(found):
        raise RetryLater(f"PostgreSQL: {newer(gone)} (deploy a newer AgentFlow)", code="newer_database")
    if any(each.elsewhere for each in found):
        raise RetryLater(f"PostgreSQL: {RESTORED}", code="restored")


def contracts(applied: Iterable[Applied]) -> list[str]:
    """The migrations that this program does not know and that have taken something away."""
    known = {path.name for path in migrations()}
    return sorted(each.name for each in applied if each.contract and each.name not in known)


def newer(gone: list[str]) -> str:
    return f"the schema is newer than this program: what it uses may have gone with {', '.join(gone)}"


def outdated(what: str) -> RetryLater:
    return RetryLater(f"PostgreSQL: the schema is older than this program: {what} ({MIGRATE})", code="old_schema")


def without_schema(fault: psycopg.Error) -> RetryLater | None:
    """What it means that the list of migrations cannot be read; None where that is not the fault."""
    if isinstance(fault, pg.UndefinedTable | pg.InvalidSchemaName):
        return outdated("there is none yet")
    if isinstance(fault, pg.InsufficientPrivilege):
        return outdated("it does not show its migrations")  # as before they were shown to hosts
    return None
