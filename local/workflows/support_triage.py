"""support-triage.yaml, built in Python: the same plan, checked the same way. `agentflow run` takes either."""

from agentflow.plan import Workflow, result, value

flow = Workflow(
    "support-triage",
    steps=12,
    usd=0.05,
    wall="7d",
    description="Answers a customer's ticket. Refunds up to 50 are made at once, larger ones once a person agrees; a "
    "refund about which the customer cannot be told is taken back.",
)
ticket, order, amount = flow.input("ticket", str), flow.input("order", str), flow.input("amount", float)
topic, mood, decision = (flow.var(name, str) for name in ("topic", "mood", "decision"))
refund, reply = flow.var("refund", str), flow.var("reply", str)
flow.output(topic=topic, decision=decision, refund=refund, reply=reply)

make = flow.python("refund", 'def run(order, amount):\n    return {"refund": f"R-{order}-{round(amount * 100)}"}\n')
revoke = flow.python("revoke", 'def run(refund):\n    return {"revoked": refund}\n')

classify = flow.llm(
    "classify",
    "small",
    "A customer writes:\n{ticket}\n"
    "Classify it. topic: refund when they want money back, else question. mood: calm or upset.\n",
    in_={"ticket": ticket},
    out={"topic": str, "mood": str},
    max_tokens=100,
    retry={"max": 3, "backoff": "500ms"},
)
approve = flow.human(
    "approve",
    "support-lead",
    in_={"ticket": ticket, "order": order, "amount": amount, "mood": mood},
    out={"ok": bool, "why": str},
    timeout="2d",
)
take_back = flow.tool("take_back", revoke, in_={"refund": result.refund}, retry={"max": 5})
pay = flow.tool(
    "pay", make, in_={"order": order, "amount": amount}, out={"refund": str}, undo=take_back, retry={"max": 3}
)
write = flow.llm(
    "answer",
    "small",
    "Answer this customer ({mood}) in two sentences, with nothing that is not said here.\n"
    "They wrote: {ticket}\nWhat was decided: {decision}\n",
    in_={"ticket": ticket, "decision": decision, "mood": mood},
    max_tokens=200,
    retry={"max": 3, "backoff": "500ms"},
)
undo_all = flow.compensate("undo_all")

answered = flow.state("answered", final="success")
unanswered = flow.state("unanswered", final="failure", reason="'no answer could be written for order ' + order")
sorting = flow.state("sorting", run=classify)
approving = flow.state("approving", run=approve)
refunding = flow.state("refunding", run=pay)
answering = flow.state("answering", run=write)
undoing = flow.state("undoing", run=undo_all)
flow.initial(sorting)

known = {topic: result.topic, mood: result.mood}
asks_nothing = {topic: result.topic, decision: value("no refund was asked for")}
sorting.on("done", if_=result.topic != "refund", set=asks_nothing, to=answering)
sorting.on("done", if_=amount <= 50.0, set=known, to=refunding).on("done", set=known, to=approving)
sorting.on("failed", set={topic: value("unknown")}, to=approving)  # no model, no judgement: a person looks
approving.on("done", if_=result.ok, to=refunding)
approving.on("done", set={decision: "no refund: " + result.why}, to=answering)
# also when nobody answers in time
approving.on("failed", set={decision: value("a colleague will be in touch")}, to=answering)
refunding.on("done", set={refund: result.refund, decision: "refunded as " + result.refund}, to=answering)
refunding.on("failed", set={decision: value("the refund will be made by hand")}, to=answering)
answering.on("done", set={reply: result.text}, to=answered).on("failed", to=undoing)
undoing.on("done", set={refund: value("")}, to=unanswered).on("failed", to=unanswered)
