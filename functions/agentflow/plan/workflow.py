"""A workflow under construction: ``document()`` is what has been built, ``check()`` compiles it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

from agentflow.errors import Invalid, Problem
from agentflow.plan.expression import Condition, Expr, Exprs, Value
from agentflow.plan.nodes import Child, Node
from agentflow.plan.nodes import task as task_node
from agentflow.plan.part import Part, Placed, Places, written
from agentflow.plan.states import Action, State, Way, all_named, named, transition
from agentflow.plan.tasks import Agent, AtLimit, Policy, Task, Tool, TypeName, type_text, types
from agentflow.plan.tasks import named as task_name

if TYPE_CHECKING:
    from agentflow.core.plan import Plan


class Workflow(Part):
    """A workflow. ``steps``: the most a run may start; ``usd``: may spend; ``wall``: how long it may take."""

    def __init__(
        self,
        name: str,
        *,
        steps: int,
        usd: float | None = None,
        wall: str | None = None,
        preflight: str | None = None,
        budget: str | None = None,
        at_limit: AtLimit | None = None,
        description: str | None = None,
    ) -> None:
        limits = Part(steps=steps, usd=usd, wall=wall, preflight=preflight, budget=budget, at_limit=at_limit)
        super().__init__(agentflow="plan/v1", kind=None, name=name, description=description, limits=limits)
        self.name = name

    # -- values

    def input(self, name: str, type: TypeName) -> Expr:
        """A required input."""
        self._add("input", name, Placed(type_text(type)))
        return Expr(name)

    def var(self, name: str, type: TypeName) -> Expr:
        """A working variable; it starts at zero."""
        self._add("vars", name, Placed(type_text(type)))
        return Expr(name)

    def output(self, **values: Value) -> None:
        """The run's result; all variables when not given."""
        self.keys["output"] = Placed(values)

    def trigger(
        self, type: str, *, input: Exprs | None = None, if_: Condition | None = None, budget: Value | None = None
    ) -> None:
        """The CloudEvent that starts a run."""
        self.keys["trigger"] = Part(type=type, if_=if_, input=input, budget=budget)

    def signal(self, name: str, **carries: TypeName) -> None:
        """What a signal carries in ``event.data``, by name and type."""
        self._add("events", name, types(carries))

    # -- tools and tasks

    def python(
        self,
        name: str,
        code: str | None = None,
        *,
        file: str | None = None,
        in_: Mapping[str, TypeName] | None = None,
        description: str | None = None,
        timeout: str | None = None,
        memory: str | None = None,
        cpu: float | None = None,
        output: str | None = None,
        usd: float | None = None,
        usd_per_second: float | None = None,
        effects: Literal["none", "idempotent", "once"] | None = None,
    ) -> Tool:
        """A tool: Python code that defines run(**input) -> dict, as text or in a ``file`` beside the workflow's.

        ``in_``: what it takes, by name and type. ``usd``: what a call costs, each second of it ``usd_per_second`` more.
        ``effects``: what a call changes outside; calls of a tool with ``once`` are never repeated blindly.
        """
        keys = {"code": code, "file": file, "description": description, "timeout": timeout, "memory": memory}
        more = {"cpu": cpu, "output": output, "usd": usd, "usd_per_second": usd_per_second, "effects": effects}
        return self._tool(Tool(name, kind="python", in_=types(in_), **keys, **more))

    def define_agent(
        self,
        name: str,
        model: str,
        *,
        system: str | None = None,
        tools: Sequence[Tool | str] | None = None,
        max_tokens: int | None = None,
        description: str | None = None,
    ) -> Agent:
        """A model that works in turns, and the tools it may call."""
        listed = None if tools is None else [each.name if isinstance(each, Tool) else each for each in tools]
        keys = {"system": system, "tools": listed, "max_tokens": max_tokens, "description": description}
        agent = Agent(name, model=model, **keys)
        self._add("agents", name, agent)
        return agent

    def agent(
        self,
        name: str,
        use: Agent | str,
        *,
        prompt: str | None = None,
        turns: int | None = None,
        cheaper: str | None = None,
        undo: Task | str | None = None,
        **policy: Unpack[Policy],
    ) -> Task:
        """An agent works in turns with its tools until it answers: with text, or an object of the shape ``out``."""
        used = use.name if isinstance(use, Agent) else use
        keys = {"prompt": prompt, "turns": turns, "cheaper": cheaper, "undo": task_name(undo)}
        return self._task(name, "agent", policy, use=used, **keys)

    def llm(
        self,
        name: str,
        use: str,
        prompt: str,
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        min_tokens: int | None = None,
        cheaper: str | None = None,
        **policy: Unpack[Policy],
    ) -> Task:
        """A model answers a prompt with {placeholders}: with text, or with an object of the shape ``out``.

        Where a limit is in the way the reply may be shortened to ``min_tokens``, or a ``cheaper`` model asked.
        """
        keys = {"system": system, "max_tokens": max_tokens, "min_tokens": min_tokens, "cheaper": cheaper}
        return self._task(name, "llm", policy, use=use, prompt=prompt, **keys)

    def tool(
        self,
        name: str,
        use: Tool | str,
        *,
        key: Expr | str | None = None,
        undo: Task | str | None = None,
        **policy: Unpack[Policy],
    ) -> Task:
        """A tool is called: one of the workflow's, or ``std.echo``. ``key``: the call's idempotency key. ``undo``: the
        task that undoes it; ``none`` where nothing is to be undone."""
        used = use.name if isinstance(use, Tool) else use
        return self._task(name, "tool", policy, use=used, key=key, undo=task_name(undo))

    def wait(
        self,
        name: str,
        for_: str | None = None,
        *,
        until: Expr | str | None = None,
        description: str | None = None,
    ) -> Task:
        """Time passes: some time (``5m``), or until a point in time, which is text."""
        return self._task(name, "wait", {}, for_=for_, until=until, description=description)

    def human(
        self,
        name: str,
        use: str,
        *,
        in_: Exprs | None = None,
        out: Mapping[str, TypeName] | None = None,
        timeout: str | None = None,
        undo: Task | str | None = None,
        description: str | None = None,
    ) -> Task:
        """A person answers, with what ``out`` declares. ``use``: who it is for."""
        keys = {"in_": in_, "timeout": timeout, "undo": task_name(undo), "description": description}
        return self._task(name, "human", {}, use=use, **keys, out=types(out))

    def workflow(
        self, name: str, use: str, *, undo: Task | str | None = None, **policy: Unpack[Policy]
    ) -> Task:
        """Another workflow runs: its name, name@3, name@3- or name@3-5. Its output is the result."""
        return self._task(name, "workflow", policy, use=use, undo=task_name(undo))

    def compensate(
        self, name: str, *, scope: State | str | None = None, description: str | None = None
    ) -> Task:
        """What has been done in the scope (a state, or the label of a node), and can be undone, is undone."""
        return self._task(name, "compensate", {}, scope=named(scope), description=description)

    def event(
        self,
        name: str,
        use: str,
        *,
        match: Condition | None = None,
        in_: Exprs | None = None,
        out: Mapping[str, TypeName] | None = None,
        timeout: str | None = None,
        description: str | None = None,
    ) -> Task:
        """A CloudEvent of type ``use`` is awaited; its data is ``result.data``, its fields those of ``out``."""
        keys = {"match": match, "in_": in_, "timeout": timeout, "description": description}
        return self._task(name, "event", {}, use=use, **keys, out=types(out))

    # -- the plan

    def root(self, node: Child) -> None:
        """The behaviour tree."""
        self.keys |= {"kind": "bt", "root": node if isinstance(node, Node) else task_node(node)}

    def tree(self, name: str, root: Child, **variables: TypeName) -> str:
        """A tree of its own that ``subtree`` nodes use, with its variables; its name."""
        node = root if isinstance(root, Node) else task_node(root)
        self._add("trees", name, Part(vars=types(variables) or None, root=node))
        return name

    def goal(
        self,
        goal: str,
        use: str,
        *,
        by: Literal["llm"] | None = None,
        kind: Literal["bt", "fsm", "any"] | None = None,
        tasks: Sequence[Task | str] | None = None,
        usd: float | None = None,
        max_tokens: int | None = None,
        timeout: str | None = None,
        approve: Part | None = None,
        fallback: str | None = None,
        class_: str | None = None,
        cache: bool | None = None,
    ) -> None:
        """What a model plans for, with {placeholders} of inputs; ``use``: the model; ``approve``: see ``approval``."""
        keys = {"by": by, "kind": kind, "usd": usd, "max_tokens": max_tokens, "timeout": timeout, "approve": approve}
        named_tasks = None if tasks is None else [task_name(each) for each in tasks]
        more = {"tasks": named_tasks, "fallback": fallback, "class_": class_, "cache": cache}
        self.keys |= {"kind": None, "plan": Part(goal=goal, use=use, **keys, **more)}

    def state(
        self,
        name: str,
        *,
        in_: State | str | None = None,
        run: Task | str | None = None,
        initial: State | str | Sequence[State | str] | None = None,
        regions: Sequence[str] | None = None,
        visits: int | None = None,
        final: Literal["success", "failure"] | None = None,
        reason: Expr | str | None = None,
        history: Literal["shallow", "deep"] | None = None,
        to: State | str | Sequence[State | str] | None = None,
        entry: Action | None = None,
        exit: Action | None = None,
        description: str | None = None,
    ) -> State:
        """A state of the machine. States that do not exist yet are named by text."""
        task = run.name if isinstance(run, Task) else run
        keys = {
            "in_": named(in_),
            "run": task,
            "initial": all_named(initial),
            "regions": regions,
            "visits": visits,
        }
        state = State(
            name,
            **keys,
            final=final,
            reason=reason,
            history=history,
            to=all_named(to),
            entry=entry,
            exit=exit,
            description=description,
        )
        self.keys["kind"] = "fsm"
        self._add("states", name, state)
        return state

    def initial(self, state: State | str | Sequence[State | str]) -> None:
        """The machine's first state, or several in different regions."""
        self.keys["initial"] = all_named(state)

    def on(self, event: str, **way: Unpack[Way]) -> None:
        """A transition that any state may take, after its own."""
        self.keys["transitions"] = [*self.keys.get("transitions", []), transition(event=event, **way)]

    # -- what it comes to

    def document(self) -> dict[str, Any]:
        """The plan/v1 document."""
        document: dict[str, Any] = written(self, "", {})
        return document

    def check(self, document: Mapping[str, Any] | None = None) -> Plan:
        """The compiled plan; ``Invalid`` with every problem, each with the line that built the part it is in.

        ``document``: in place of its own, where tools' files have been read into that.
        """
        from agentflow.wire.document import compile_document

        with self._placing():
            return compile_document(self.document() if document is None else document)

    def warnings(self, document: Mapping[str, Any] | None = None) -> tuple[Problem, ...]:
        """What can be said against the plan all the same, with lines as faults have; ``Invalid`` where it is refused.

        ``document``: as for ``check``.
        """
        from agentflow.wire.document import check_document

        with self._placing():
            found = check_document(self.document() if document is None else document).warnings
        places = self._places()
        return tuple(_placed(problem, places) for problem in found)

    @contextmanager
    def _placing(self) -> Iterator[None]:
        """Problems that are raised here name the lines that built their parts."""
        try:
            yield
        except Invalid as refusal:
            places = self._places()
            raise Invalid(
                [_placed(problem, places) for problem in refusal.problems], code="invalid_plan"
            ) from None

    def _places(self) -> Places:
        places: Places = {}
        written(self, "", places)
        return places

    def _task(self, name: str, kind: str, policy: Policy, **keys: Any) -> Task:
        shared: dict[str, Any] = dict(policy)
        if "out" in policy:
            shared["out"] = types(policy["out"])
        task = Task(name, kind=kind, **keys, **shared)
        self._add("tasks", name, task)
        return task

    def _tool(self, tool: Tool) -> Tool:
        self._add("tools", tool.name, tool)
        return tool

    def _add(self, table: str, name: str, entry: Any) -> None:
        entries = self.keys.setdefault(table, {})
        if name in entries:
            problem = Problem(f"{table}.{name}", "is there already", "choose another name", "duplicate")
            raise Invalid([_placed(problem, {"": Part().where})])
        entries[name] = entry


def _placed(problem: Problem, places: Places) -> Problem:
    """The problem with the line of the innermost part that was built around its path."""
    from agentflow.core.canonical import around

    where = next((places[path] for path in around(problem.path) if path in places), places[""])
    return replace(problem, message=f"{where}: {problem.message}")
