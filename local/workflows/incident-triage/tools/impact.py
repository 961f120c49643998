"""What users noticed: how many requests failed, for how long, and how slow the others became."""

import re
from datetime import datetime

ANSWER = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z? .*\bstatus=(\d{3})\b(?:.*\bms=(\d{1,9})\b)?"
)


def run(log):
    answers = []
    with open(log, encoding="utf-8", errors="replace") as file:
        for match in filter(None, map(ANSWER.match, file)):
            try:
                time = datetime.fromisoformat(match[1])
            except ValueError:  # 99:99:99
                continue
            answers.append((time, match[2] >= "500", match[3]))
    failures = [time for time, bad, _ in answers if bad]
    if not failures:
        return {"requests": len(answers), "failed": 0, "percent": 0.0, "seconds": 0.0, "during": {}}
    begin, end = min(failures), max(failures)
    during = [answer for answer in answers if begin <= answer[0] <= end]
    return {
        "requests": len(answers),
        "failed": len(failures),
        "percent": round(100 * len(failures) / len(answers), 1),
        "seconds": round((end - begin).total_seconds(), 1),
        "during": {
            "from": begin.isoformat(timespec="milliseconds") + "Z",
            "to": end.isoformat(timespec="milliseconds") + "Z",
            "percent": round(100 * len(failures) / len(during), 1),
            "p95_ms": p95(during),
            "p95_ms_otherwise": p95([answer for answer in answers if not begin <= answer[0] <= end]),
        },
    }


def p95(answers):
    """The time that 95 of 100 successful answers stayed below."""
    took = sorted(int(ms) for _, bad, ms in answers if ms and not bad)
    return took[min(len(took) - 1, len(took) * 95 // 100)] if took else 0
