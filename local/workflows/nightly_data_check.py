"""nightly-data-check.yaml, built in Python."""

from agentflow.plan import (
    Workflow,
    cel,
    each,
    event,
    fallback,
    if_,
    item,
    result,
    sequence,
    size,
    succeed,
    task,
    value,
)

flow = Workflow(
    "nightly-data-check",
    steps=130,
    usd=0.05,
    wall="12h",
    description="Checks tables of a nightly export, several at once. What is wrong is explained by a model and shown "
    "to a person, who decides whether the export is used all the same.",
)
tables, least_rows = flow.input("tables", "list(file)"), flow.input("least_rows", int)
bad = flow.var("bad", list[str])
explanation, verdict = flow.var("explanation", str), flow.var("verdict", str)
flow.output(verdict=verdict, bad=bad, explanation=explanation)
flow.trigger("com.example.export.finished", input={"tables": event.data.tables, "least_rows": event.data.least_rows})

profile = flow.python(
    "profile",
    '''\
import csv
def run(table, least_rows):
    with open(table, newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    columns = list(rows[0]) if rows else []
    empty = sorted(c for c in columns if sum(not (row[c] or "").strip() for row in rows) * 10 > len(rows))
    twice = len(rows) - len({tuple(row.values()) for row in rows})
    faults = [f"{len(rows)} rows, {least_rows} are expected"] if len(rows) < least_rows else []
    faults += [f"column {c} is mostly empty" for c in empty] + ([f"{twice} rows are doubled"] if twice else [])
    name = ",".join(columns[:3]) or "an empty table"
    return {"ok": not faults, "fault": f"{name}: " + "; ".join(faults) if faults else ""}
''',
)
check = flow.tool(
    "check",
    profile,
    in_={"table": item, "least_rows": least_rows},
    out={"ok": bool, "fault": str},
    timeout="2m",
    retry={"max": 2},
)
explain = flow.llm(
    "explain",
    "small",
    "These tables of tonight's export failed their checks:\n{bad}\n"
    "Say in two sentences what probably went wrong.\n",
    in_={"bad": bad},
    max_tokens=200,
    retry={"max": 2},
)
decide = flow.human(
    "decide", "data-owner", in_={"bad": bad, "explanation": explanation}, out={"use": bool}, timeout="8h"
)

checked = fallback(
    task(check, set={bad: cel("result.ok ? bad : bad + [result.fault]")}),
    succeed(on_success={bad: cel("bad + ['a table that cannot be read']")}),
)
asked = sequence(
    fallback(  # without an explanation a person decides all the same
        task(explain, set={explanation: result.text}),
        succeed(on_success={explanation: value("no model could explain it")}),
    ),
    fallback(
        task(decide, ok_if=result.use, on_success={verdict: value("used all the same")}),
        succeed(on_success={verdict: value("held back")}),
    ),
)
flow.root(
    sequence(
        each(checked, tables, max=100, concurrency=8),
        if_(size(bad) == 0, succeed(on_success={verdict: value("clean")}), asked),
    )
)
