"""State machines as diagrams: states in states, transitions as arrows with event and guard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agentflow.core.machine import Action, Machine, Raise, State, Transition
from agentflow.core.structure import transitions_of
from agentflow.picture.diagram import UNMARKED, Arrow, Box, Diagram, Mark, Shape
from agentflow.picture.text import duration

ANYWHERE = " any"
"""The key of what stands for all states; no state has such a name."""

_SHAPES: dict[str, Shape] = {
    "compound": "compound", "parallel": "parallel", "region": "region", "history": "history",
    "success": "success", "failure": "failure",
}  # fmt: skip


def machine_diagram(name: str, machine: Machine, marks: Mapping[str, Mark]) -> Diagram:
    """The diagram of a machine; the keys of ``marks`` are names of states."""
    builder = _Builder(machine, marks)
    arrows = [*builder.begin("", 0, machine.first), *builder.arrows()]
    anywhere = (
        (Box(ANYWHERE, "any", "any state"),) if any(arrow.source == ANYWHERE for arrow in arrows) else ()
    )
    boxes = (Box(_start(""), "start"), *anywhere, *builder.inside(0))
    return Diagram("machine", name, boxes, tuple(arrows))


def _start(name: str) -> str:
    return f"{name} start"


class _Builder:
    def __init__(self, machine: Machine, marks: Mapping[str, Mark]) -> None:
        self.states = machine.states
        self.marks = marks
        self.children: dict[int, list[State]] = {}
        for state in self.states[1:]:
            self.children.setdefault(state.parent, []).append(state)

    def inside(self, index: int) -> Iterator[Box]:
        """The boxes of the states directly inside one; how deep they are nested is bounded."""
        for state in self.children.get(index, ()):
            yield self._box(state)

    def begin(self, name: str, around: int, first: tuple[int, ...]) -> Iterator[Arrow]:
        """Where a state begins: what is directly inside, though deeper states may be named."""
        chains = [self.states[index].chain for index in first]
        for index in dict.fromkeys(chain[chain.index(around) - 1] for chain in chains):
            yield Arrow(_start(name), self.states[index].name)

    def arrows(self) -> Iterator[Arrow]:
        """What leads into states by default, and all transitions; the same between the same two only once."""
        for state in self.states[1:]:
            if state.kind == "history":
                yield from (Arrow(state.name, self.states[index].name) for index in state.first)
            else:
                yield from self.begin(state.name, state.index, state.first)
        for state in self.states:
            for transition in transitions_of(state):
                yield from self._arrows(transition)

    def _arrows(self, transition: Transition) -> Iterator[Arrow]:
        source = self.states[transition.source].name if transition.source else ANYWHERE
        said = transition.event or (f"after {duration(transition.after_ms)}" if transition.after_ms else "")
        if transition.guard is not None:
            said += f" [{transition.guard.source}]"
        if not transition.targets:
            yield Arrow(source, source, said.strip(), moves=False)
        for target in transition.targets:
            yield Arrow(source, self.states[target].name, said.strip())

    def _shape(self, state: State) -> Shape:
        if state.kind == "compound" and self.states[state.parent].kind == "parallel":
            return "region"
        return _SHAPES.get(state.kind, "state")

    def _box(self, state: State) -> Box:
        inside = tuple(self.inside(state.index))
        if inside and state.first:
            inside = (Box(_start(state.name), "start"), *inside)
        glyph = {"history": "H*" if state.deep else "H", "success": "✓", "failure": "✗"}.get(state.kind, "")
        return Box(
            key=state.name,
            shape=self._shape(state),
            title=state.name.rpartition(".")[2] if state.kind == "region" else state.name,
            glyph=glyph,
            lines=tuple(_lines(state)),
            more=tuple(_more(state)),
            inside=inside,
            mark=self.marks.get(state.name, UNMARKED),
        )


def _lines(state: State) -> Iterator[str]:
    if state.task is not None:
        yield f"{state.task.kind} {state.task.name}"
    if state.visits:
        yield f"at most {state.visits}×"
    if state.reason is not None:
        yield state.reason.source


def _more(state: State) -> Iterator[str]:
    yield state.path
    for said, action in (("entry", state.entry), ("exit", state.exit)):
        yield from _done(said, action)
    for transition in transitions_of(state):
        yield from _done(transition.event or "then", transition.action)


def _done(said: str, action: Action | None) -> Iterator[str]:
    if action is not None:
        yield from (f"{said}: {name} = {expr.source}" for name, expr in action.sets)
        yield from (f"{said}: raise {_raised(each)}" for each in action.raises)


def _raised(each: Raise) -> str:
    carried = ", ".join(f"{name} = {expr.source}" if name else expr.source for name, expr in each.data.items())
    return each.event + (f" ({carried})" if carried else "") + (f" [{each.guard.source}]" if each.guard else "")
