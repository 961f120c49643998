"""A machine with most of what machines have. mypy checks these files as it checks ours."""

from agentflow.plan import Workflow, action, event, one_of, result

flow = Workflow("review", steps=20, usd=1, wall="2h")
author = flow.input("author", str)
text = flow.var("text", str)
rounds = flow.var("rounds", int)
flow.output(text=text, rounds=rounds)
flow.trigger("com.example.review.asked", input={"author": event.data.author}, if_=one_of(event.source, "/a", "/b"))
draft = flow.llm("draft", "small", "Write.", retry={"max": 3, "backoff": "1s"})

working = flow.state("working", initial="drafting")
drafting = flow.state("drafting", in_=working, run=draft)
reviewing = flow.state("reviewing", in_=working, visits=3, entry=action(set={rounds: rounds + 1}))
ready = flow.state("ready", in_=working, final="success")
before = flow.state("before", in_=working, history="deep", to=drafting)
paused = flow.state("paused", visits=5)
late = flow.state("late", final="failure")
sent = flow.state("sent", final="success")

flow.initial(working)
flow.on("give-up", to=late)
working.after("2h", to=late).on("pause", to=paused).on("done", to=sent)
drafting.on("done", set={text: result.text}, to=reviewing)
reviewing.on("approved", if_=event.data.by != author, to=ready).on("rejected", to=drafting)
reviewing.when(rounds > 5, to=ready)
paused.on("resume", to=before)
