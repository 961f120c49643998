"""What a database's schema offers to those who use it, as a set of facts, and what a migration does to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg

LARGE = {
    "runs", "steps", "history", "ledger", "outbox", "inbox", "timers", "subscriptions", "blobs", "blob_uses", "parked",
    "audit", "unsealed", "spend", "run_spend", "claims",
}  # fmt: skip
"""Tables that have many rows, or that every step writes."""

OFFERED = {
    "table": """select relname from pg_class
        where relnamespace = 'agentflow'::regnamespace and relkind in ('r', 'p', 'v') and not relispartition""",
    "column": """select c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'agentflow'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
          and a.attnum > 0 and not a.attisdropped""",
    "function": """select p.oid::regprocedure || ' returns ' || pg_get_function_result(p.oid) from pg_proc p
        where pronamespace = 'agentflow'::regnamespace""",
    "policy": """select tablename || ': ' || policyname || ' to ' || roles::text from pg_policies
        where schemaname = 'agentflow' and permissive = 'PERMISSIVE'""",
    "right": """select grantee || ' may ' || privilege_type || ' ' || table_name
        from information_schema.table_privileges where table_schema = 'agentflow' and grantee <> 'agentflow_owner'
        union select grantee || ' may ' || privilege_type || ' ' || table_name || '.' || column_name
        from information_schema.column_privileges where table_schema = 'agentflow' and grantee <> 'agentflow_owner'
        union select grantee || ' may call ' || routine_name from information_schema.routine_privileges
        where routine_schema = 'agentflow' and grantee <> 'agentflow_owner'""",
}
"""What may be there more, but not less, after a migration."""

REQUIRED = {
    "column without default": """select c.relname || '.' || a.attname
        from pg_class c join pg_attribute a on a.attrelid = c.oid
        where c.relnamespace = 'agentflow'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and a.attnum > 0 and not a.attisdropped and a.attnotnull and not a.atthasdef and a.attidentity = ''""",
    "constraint": """select c.relname || '.' || k.conname from pg_constraint k join pg_class c on c.oid = k.conrelid
        where c.relnamespace = 'agentflow'::regnamespace and not c.relispartition and k.contype <> 'n'""",
    "unique index": """select c.relname || '.' || i.relname
        from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
        where c.relnamespace = 'agentflow'::regnamespace and not c.relispartition and x.indisunique""",
    "restrictive policy": """select tablename || '.' || policyname from pg_policies
        where schemaname = 'agentflow' and permissive <> 'PERMISSIVE'""",
}
"""What tables that were there before may not have more of, each as table.name."""

PLACES = "select relname, relfilenode from pg_class where relnamespace = 'agentflow'::regnamespace and relkind = 'r'"
LOCKS = """select distinct c.relname, l.mode from pg_locks l join pg_class c on c.oid = l.relation
    where l.pid = pg_backend_pid() and c.relnamespace = 'agentflow'::regnamespace and c.relkind in ('r', 'p')
      and not c.relispartition"""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema at one moment."""

    offered: dict[str, set[str]] = field(default_factory=dict)
    required: dict[str, set[str]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, conn: psycopg.Connection[Any]) -> Schema:
        def facts(queries: dict[str, str]) -> dict[str, set[str]]:
            return {kind: {row[0] for row in conn.execute(text.encode())} for kind, text in queries.items()}

        return cls(facts(OFFERED), facts(REQUIRED), dict(conn.execute(PLACES).fetchall()))

    @property
    def tables(self) -> set[str]:
        return self.offered["table"]


def findings(before: Schema, after: Schema, locks: set[tuple[str, str]], *, widens: frozenset[str] = frozenset(),
             contract: bool = False) -> list[str]:  # fmt: skip
    """Why functions of the former version could not go on beside or after a migration; in words, in order."""
    found = []
    for kind, was in before.offered.items():
        found += [f"takes away {kind} {each}" for each in was - after.offered[kind] if not contract]
    for kind, has in after.required.items():
        for each in has - before.required[kind]:
            table, _, name = each.partition(".")
            if table in before.tables and name not in widens:
                found.append(f"{table} requires more: {kind} {name}")
    for table, place in before.places.items():
        if after.places.get(table, place) != place:
            found.append(f"writes all of {table} anew")
    for table, mode in locks:
        if table in LARGE & before.tables and mode in ("ShareLock", "RowExclusiveLock"):
            what = "makes an index on" if mode == "ShareLock" else "writes rows of"
            found.append(f"{what} {table}, and everybody waits")
    return sorted(found)
