"""What processes and the machine spend, read from /proc: CPU seconds (10 ms resolution) and resident memory."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024


def spent_s(pid: int) -> float:
    """CPU seconds of a process, its living descendants and those of its children that have ended."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    total, todo = 0.0, [pid]
    while todo:
        each = todo.pop()
        todo += parents.get(each, ())
        fields = _stat(each)
        if fields:
            total += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return total / TICKS


def machine_s() -> tuple[float, float]:
    """Seconds that all cores together have worked, and have had nothing to do, since the machine started."""
    fields = [int(field) for field in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]  # waiting for a disk is having nothing to do
    return (sum(fields) - idle) / TICKS, idle / TICKS


def rss_kb(pid: int | str = "self") -> int:
    """Resident memory of a process, in KB."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE_KB


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name: state, parent, …; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
