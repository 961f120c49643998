"""What went wrong first: follows every failed request through the log to the component that complained first."""

import re
from collections import Counter

LINE = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S{0,8}) ([A-Z]{4,8}) ([\w.-]{1,40}) (.*)")
REQUEST = re.compile(r"\brequest=(\w{1,64})")
KIND = re.compile(r"\bkind=(\w{1,40})")
STATUS = re.compile(r"\bstatus=5\d\d\b")
COMPLAINTS = ("WARNING", "WARN", "ERROR", "CRITICAL", "FATAL")


def run(log):
    complaints, failed = {}, []  # by request, in the order of the log
    with open(log, encoding="utf-8", errors="replace") as file:
        for line in file:
            match = LINE.match(line)
            if match is None or match[2] not in COMPLAINTS:
                continue
            request = REQUEST.search(match[4])
            trail = complaints.setdefault(request[1] if request else "", [])
            trail.append((match[3], match[1], line.strip()[:300]))
            if request and STATUS.search(match[4]):
                failed.append(request[1])
    # Without failed requests, what complained first is all there is to go by.
    trails = [complaints[request] for request in failed] or [trail[:1] for trail in complaints.values()]
    if not trails:
        return {"component": "none", "since": "", "blamed": 0, "failed": 0, "chain": "", "evidence": []}
    (component, kind), count = Counter(map(first, trails)).most_common(1)[0]
    ours = [trail for trail in trails if first(trail) == (component, kind)]
    # It may have begun with requests that still went through.
    since = min(
        at
        for trail in complaints.values()
        for name, at, text in trail
        if (name, named(text)) == (component, kind)
    )
    return {
        "component": component,
        "since": since,
        "blamed": count,
        "failed": len(failed),
        "chain": Counter(chain(trail) for trail in ours).most_common(1)[0][0],
        "evidence": [text for _, _, text in ours[0][:5]],
    }


def first(trail):
    component, _, text = trail[0]
    return component, named(text)


def named(text):
    kind = KIND.search(text)
    return kind[1] if kind else ""


def chain(trail):
    """`payments SlowAnswer > pool PoolTimeout > http`: who complained about one request, in order."""
    return " > ".join(f"{component} {named(text)}".strip() for component, _, text in trail[:10])
