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
        return {"component": "none", "since": "", "blamed": 0, "failed": 0, "chain": [], "evidence": []}
    blamed = Counter(trail[0][0] for trail in trails)
    component, count = blamed.most_common(1)[0]
    ours = [trail for trail in trails if trail[0][0] == component]
    return {
        "component": component,
        "since": min(trail[0][1] for trail in ours),
        "blamed": count,
        "failed": len(failed),
        "chain": [name for name, _ in Counter(chain(trail) for trail in ours).most_common(1)],
        "evidence": [text for _, _, text in ours[0][:5]],
    }


def chain(trail):
    """`payments SlowAnswer > pool PoolTimeout > http`: who complained about one request, in order."""
    kinds = [(component, KIND.search(text)) for component, _, text in trail[:10]]
    return " > ".join(f"{component} {kind[1]}" if kind else component for component, kind in kinds)
