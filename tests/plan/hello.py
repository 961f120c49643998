"""The workflow of the README, built in Python. mypy checks these files as it checks ours."""

from agentflow.plan import Workflow, result, sequence, task

flow = Workflow("hello", steps=2, usd=0.01)
name = flow.input("name", str)
letters = flow.var("letters", int)
greeting = flow.var("greeting", str)
count = flow.python("count", "def run(text): return {'letters': sum(map(str.isalpha, text))}")
measure = flow.tool("measure", count, in_={"text": name}, out={"letters": int})
greet = flow.llm("greet", "small", "Greet {name}; mention its {n} letters.", in_={"name": name, "n": letters})
flow.root(sequence(task(measure, set={letters: result.letters}), task(greet, set={greeting: result.text})))
