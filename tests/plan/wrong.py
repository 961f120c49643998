"""What mypy finds in a workflow: each line here is an error, or the ignore would be one."""

from agentflow.plan import Workflow, check, each, sequence

flow = Workflow("wrong", steps=1)
x = flow.var("x", int)
wait = flow.wait("wait", "1s")
flow.var("y", 3)  # type: ignore[arg-type]
flow.tool("t", wait)  # type: ignore[arg-type]
sequence("wait")  # type: ignore[arg-type]
each(wait, "xs")  # type: ignore[call-arg]
check(x > 1, skipif=True)  # type: ignore[call-arg]
flow.state("s", final="maybe")  # type: ignore[arg-type]
flow.state("u").on("done", too="s")  # type: ignore[call-arg]
