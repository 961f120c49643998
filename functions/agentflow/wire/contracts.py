"""The contract files: written from the code that is their source, and checked for drift.

``python -m agentflow.wire.contracts`` writes schemas/events, schemas/plan.schema.json, events/catalogue.json,
events/streams.json, events/examples and the table in events/README.md; ``--check`` writes nothing and fails
when a file differs, is missing or is nobody's.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentflow.wire import json_format
from agentflow.wire.catalogue import CATALOGUE, Entry, incoming_subject
from agentflow.wire.examples import TENANT, example, outside
from agentflow.wire.headers import PREFIX
from agentflow.wire.http import to_http
from agentflow.wire.nats import to_nats
from agentflow.wire.place import contracts_path
from agentflow.wire.streams import CONSUMERS, STREAMS

TABLE_BEGIN = "<!-- generated: python -m agentflow.wire.contracts -->"
TABLE_END = "<!-- end of generated -->"

# Folders in which every file is written from here.
OWNED = ("schemas/events", "events/examples")


def files(root: Path) -> dict[str, str]:
    """Every contract file by its path below ``root``, with the text it should have."""
    found: dict[str, str] = {}
    for entry in CATALOGUE.values():
        found[_schema_path(entry)] = _json(schema(entry))
        found[_example_path(entry)] = _json(json.loads(json_format.encode(example(entry.name))))
    found["events/examples/outside/structured.json"] = _json(json.loads(json_format.encode(outside())))
    found["events/examples/outside/binary.http"] = _http_text()
    found["events/examples/outside/binary.nats"] = _nats_text()
    found["events/catalogue.json"] = _json({"events": [_row(entry) for entry in CATALOGUE.values()]})
    found["events/streams.json"] = _json(
        {
            "streams": [stream.config() for stream in STREAMS],
            "consumers": [{"stream_name": c.stream, "config": c.config()} for c in CONSUMERS],
        }
    )
    plan = _plan_schema()
    if plan is not None:
        found["schemas/plan.schema.json"] = _json(plan)
    readme = root / "events" / "README.md"
    if readme.is_file():
        found["events/README.md"] = _with_table(readme.read_text())
    return found


def schema(entry: Entry) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one event's data."""
    body = entry.model.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{entry.type.replace('.', ':')}",
        **body,
        "title": entry.type,
    }


def table() -> str:
    """The catalogue as a Markdown table, one row per event."""
    rows = [
        "| event | says | kind | subject | from | consumed by |",
        "|---|---|---|---|---|---|",
    ]
    for entry in CATALOGUE.values():
        consumers = ", ".join(entry.consumers) or "subscribers"
        if entry.public and entry.consumers:
            consumers += ", subscribers"
        link = f"[`{entry.name}`](../{_schema_path(entry)})"
        said = _doc(entry)
        subjects = [entry.subject("<tenant>")] + [entry.public_subject("<tenant>")] * entry.public
        subject = "` `".join(dict.fromkeys(subjects))
        producers = ", ".join(entry.producers)
        rows.append(f"| {link} | {said} | {entry.kind} | `{subject}` | {producers} | {consumers} |")
    return "\n".join(rows)


def drift(root: Path) -> list[str]:
    """What is wrong with the contract files below ``root``, one line each; [] when all are as generated."""
    wanted = files(root)
    found = []
    for path, text in wanted.items():
        target = root / path
        if not target.is_file():
            found.append(f"{path}: is missing")
        elif target.read_text() != text:
            found.append(f"{path}: differs from what the code says")
    for folder in OWNED:
        for target in sorted((root / folder).rglob("*")):
            path = target.relative_to(root).as_posix()
            if target.is_file() and path not in wanted:
                found.append(f"{path}: belongs to no event")
    return found


def write(root: Path) -> list[str]:
    """Write every contract file below ``root`` and remove strays; returns the paths that changed."""
    changed = []
    wanted = files(root)
    for path, text in wanted.items():
        target = root / path
        if not target.is_file() or target.read_text() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            changed.append(path)
    for folder in OWNED:
        for target in sorted((root / folder).rglob("*")):
            path = target.relative_to(root).as_posix()
            if target.is_file() and path not in wanted:
                target.unlink()
                changed.append(path)
    return changed


def main(arguments: Sequence[str]) -> int:
    """The command: 0 when the files are (now) right, 1 when ``--check`` found drift."""
    root = contracts_path()
    if "--check" in arguments:
        faults = drift(root)
        for fault in faults:
            print(fault, file=sys.stderr)
        if faults:
            print("mend: python -m agentflow.wire.contracts", file=sys.stderr)
        return 1 if faults else 0
    for path in write(root):
        print(path)
    return 0


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "type": entry.type,
        "description": _doc(entry),
        "kind": entry.kind,
        "public": entry.public,
        "subject": entry.subject("{tenant}"),
        "public_subject": entry.public_subject("{tenant}") if entry.public else None,
        "stream": entry.stream,
        "producers": list(entry.producers),
        "consumers": list(entry.consumers),
        "schema": _schema_path(entry),
        "example": _example_path(entry),
    }


def _schema_path(entry: Entry) -> str:
    return f"schemas/events/{entry.name}.schema.json"


def _example_path(entry: Entry) -> str:
    return f"events/examples/{entry.name}.json"


def _doc(entry: Entry) -> str:
    return " ".join((entry.model.__doc__ or "").split()).replace("``", "`")


def _plan_schema() -> dict[str, Any] | None:
    name = "agentflow.wire.document"
    if importlib.util.find_spec(name) is None:
        return None
    found: dict[str, Any] = importlib.import_module(name).json_schema()
    return found


def _http_text() -> str:
    headers, body = to_http(outside(), "binary")
    lines = ["POST /v1/events HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\n".join([*lines, "", body.decode()]) + "\n"


def _nats_text() -> str:
    headers, payload = to_nats(outside(), "binary")
    lines = [f"PUB {incoming_subject(TENANT, 'alerts')}", "NATS/1.0"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.startswith(PREFIX)]
    return "\n".join([*lines, "", payload.decode()]) + "\n"


def _with_table(text: str) -> str:
    before, _, rest = text.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not end:
        raise ValueError(f"events/README.md lacks the lines {TABLE_BEGIN!r} and {TABLE_END!r}")
    return f"{before}{TABLE_BEGIN}\n{table()}\n{TABLE_END}{after}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
