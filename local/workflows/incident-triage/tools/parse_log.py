"""Facts about a service log: how much, how bad, since when. Lines of an unknown form are counted and left alone.

A line is `TIME LEVEL COMPONENT text`, with `request=`, `status=` and `kind=` somewhere in the text.
"""

import re
from collections import Counter
from datetime import datetime

LINE = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?Z?) ([A-Z]{4,8}) ([\w.-]{1,40}) (.*)")
STATUS = re.compile(r"\bstatus=(\d{3})\b")
KIND = re.compile(r"\bkind=(\w{1,40})")
BUCKETS = (1, 5, 10, 60, 300, 600, 3600, 86400)  # seconds
MOST = 12  # entries in any list of the result


def run(log):
    levels, components, kinds, unnamed = Counter(), Counter(), Counter(), Counter()
    lines, unknown, answered, failed, errors = 0, 0, 0, 0, []
    first_error, first, last = None, None, None
    with open(log, encoding="utf-8", errors="replace") as file:
        for lines, line in enumerate(file, 1):
            entry = read(line)
            if entry is None:
                unknown += 1
                continue
            time, level, component, text = entry
            first, last = min(first or time, time), max(last or time, time)
            levels[level] += 1
            components[component] += 1
            status, kind = STATUS.search(text), KIND.search(text)
            answered += status is not None
            failed += status is not None and status[1] >= "500"
            if level in ("ERROR", "CRITICAL", "FATAL"):
                errors.append(time)
                if kind:
                    kinds[f"{component}/{kind[1]}"] += 1
                else:
                    unnamed[f"{component}/unnamed"] += 1
                first_error = first_error or {"line": lines, "at": shown(time), "text": line.strip()[:300]}
    if first is None:
        raise ValueError(f"none of the {lines} lines reads: TIME LEVEL COMPONENT text")
    top_error, top_count = ((kinds or unnamed).most_common(1) or [("none", 0)])[0]
    width = next((w for w in BUCKETS if (last - first).total_seconds() <= w * MOST), BUCKETS[-1])
    return {
        "lines": lines,
        "unreadable_lines": unknown,
        "from": shown(first),
        "seconds": round((last - first).total_seconds(), 1),
        "levels": dict(levels.most_common(MOST)),
        "components": dict(components.most_common(MOST)),
        "requests": answered,
        "failed_requests": failed,
        # A log without requests is judged by its lines.
        "failed_percent": percent(failed, answered) if answered else percent(len(errors), levels.total()),
        "top_error": top_error,
        "top_error_count": top_count,
        "first_error": first_error,
        "errors_over_time": {"seconds_each": width, "counts": over_time(errors, first, width)},
    }


def read(line):
    match = LINE.match(line)
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match[1].rstrip("Z")), match[2], match[3], match[4]
    except ValueError:  # 99:99:99
        return None


def over_time(times, first, width):
    counts = Counter(int((time - first).total_seconds() // width) for time in times)
    return [counts[bucket] for bucket in range(min(max(counts, default=-1), MOST) + 1)]


def percent(part, whole):
    return round(100 * part / whole, 1)


def shown(time):
    return time.isoformat(timespec="milliseconds") + "Z"
