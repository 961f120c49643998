"""A file of passwords in libpq's form (pgpass): ``host:port:database:role:password`` in each line."""

from __future__ import annotations

import re
from pathlib import Path

from agentflow.errors import Rejected

_FIELD = re.compile(r"((?:\\.|[^\\:])*)(?::|$)")
FIELDS = 5


def passwords(path: Path) -> dict[str, str]:
    """Each role's password, as libpq would take it: the first line counts. ``Rejected`` where it cannot be read."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        mend = "name a file with a line host:port:database:role:password for each role"
        raise Rejected(f"{path} cannot be read: {fault}", code="bad_passfile", path="passwords", mend=mend) from None
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        fields = [re.sub(r"\\(.)", r"\1", text) for text in _FIELD.findall(line)[:FIELDS]]
        if len(fields) == FIELDS:
            found.setdefault(fields[3], fields[4])
    return found
