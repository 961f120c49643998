"""Where states are: from the flat map of the document to a hierarchy in document order.

A state listed in ``regions`` that has no states of its own becomes the first state of a region named
``parent.state``, and further states join it with ``in: parent.state``. A listed compound or parallel state is the
region itself. The order of a map's keys never matters: regions come in the order of their list, other states by
name, the initial one first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentflow.core.draft import Draft, Table

MACHINE = ""
MAX_NESTING = 12


@dataclass(slots=True)
class Place:
    """A state while the machine is compiled; ``name`` is '' for the machine and ``a.b`` for an implicit region."""

    name: str
    kind: str
    entry: Table
    path: str
    parent: str = MACHINE
    children: list[str] = field(default_factory=list)
    index: int = 0
    chain: tuple[str, ...] = ()


class Hierarchy:
    """The places of all states by name, and their names in document order; ``broken`` when there is no such thing."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.states: Table = draft.document["states"]
        self.nodes: dict[str, Place] = {MACHINE: Place(MACHINE, "machine", draft.document, "")}
        self.order: list[str] = []
        self.broken = False
        self._build()

    def _build(self) -> None:
        for name, entry in self.states.items():
            self.nodes[name] = Place(name, self._kind(name, entry), entry, f"states.{name}")
        for name, entry in self.states.items():
            for i, region in enumerate(entry.get("regions", ())):
                self._region(name, region, f"states.{name}.regions[{i}]")
        for name, entry in self.states.items():
            self._place(self.nodes[name], entry.get("in"))
        for node in self.nodes.values():
            self._known(node, "to" if node.kind == "history" else "initial")
        if self.broken:
            return
        self._number(MACHINE, ())
        lost = [name for name in self.nodes if name not in self.order]
        for name in lost:
            self._fault(f"states.{name}.in", f"{name!r} is inside itself", "let `in` lead to the outside")
        if not self.broken:
            for node in self.nodes.values():
                self._begins(node)

    def at_once(self, names: Sequence[str], path: str) -> bool:
        """Whether states can be active together; notes the first two that cannot."""
        # A history state stands for anything inside the state whose history it is.
        chains = [node.chain[node.kind == "history" :] for node in map(self.nodes.__getitem__, names)]
        for i, name in enumerate(names):
            for j, other in enumerate(names[:i]):
                common = next(around for around in chains[i] if around in chains[j])
                if common in (chains[i][0], chains[j][0]) or self.nodes[common].kind != "parallel":
                    mend = "name states in different regions of one parallel state"
                    self._fault(path, f"{other!r} and {name!r} are never active together", mend)
                    return False
        return True

    def _fault(self, path: str, message: str, mend: str = "", code: str = "hierarchy") -> None:
        self.broken = True
        self.draft.note(path, message, mend, code)

    def _kind(self, name: str, entry: Table) -> str:
        shapes = [key for key in ("run", "regions", "initial", "final", "history") if key in entry]
        if len(shapes) > 1:
            self._fault(
                f"states.{name}.{shapes[1]}",
                f"{name!r} has both {shapes[0]} and {shapes[1]}",
                "keep one of them",
            )
        if "final" in entry:
            if entry.get("transitions"):
                self._fault(
                    f"states.{name}.transitions",
                    "a final state has no transitions",
                    "remove them, or `final`",
                )
            return str(entry["final"])
        if "history" in entry:
            return self._memory(name, entry)
        return "parallel" if "regions" in entry else "compound" if "initial" in entry else "atomic"

    def _memory(self, name: str, entry: Table) -> str:
        for key in ("transitions", "exit", "visits"):
            if entry.get(key):
                self._fault(f"states.{name}.{key}", f"a history state has no {key}", "remove it")
        if "in" not in entry:
            mend = "say in: and the state whose history it is"
            self._fault(f"states.{name}.in", "is missing: a history state is inside another", mend)
        if "to" not in entry:
            mend = "name the state that is entered when there is no history yet"
            self._fault(f"states.{name}.to", "is missing", mend)
        return "history"

    def _region(self, parent: str, name: str, path: str) -> None:
        node = self.nodes.get(name)
        if self.nodes[parent].entry["regions"].count(name) > 1:
            self._fault(path, f"{name!r} is listed twice", "list each region once")
            return
        if node is None or "." in name:
            self.broken = True
            self.draft.unknown(path, "state", name, self.states)
            return
        if node.entry.get("in") != parent:
            self._fault(f"states.{name}.in", f"{name!r} is a region of {parent!r}", f"say in: {parent}")
        if node.kind in ("success", "failure", "history"):
            self._fault(
                path, f"the region {name!r} is a {node.kind} state", "let the region begin with a state that runs"
            )
        if node.kind == "atomic":
            region = f"{parent}.{name}"
            self.nodes[region] = Place(region, "region", {"initial": name}, f"states.{name}", parent)

    def _place(self, node: Place, within: str | None) -> None:
        path = f"{node.path}.in"
        if within is None:
            parent = MACHINE
        elif within in self.nodes:
            parent = within
            around = self.nodes[within]
            if around.kind == "parallel":
                parent = self._in_parallel(node, within, path)
            elif around.kind not in ("compound", "region"):
                self._fault(
                    path, f"{within!r} holds no states", f"give {within!r} an `initial`, or name a region"
                )
        else:
            outer, _, region = within.partition(".")
            if outer in self.nodes and region in self.nodes[outer].entry.get("regions", ()):
                parent = region  # a compound region is its own region
            else:
                self.broken = True
                known = [name for name, other in self.nodes.items() if other.kind in ("compound", "region")]
                self.draft.unknown(path, "state", within, known)
                return
        node.parent = parent
        self.nodes[parent].children.append(node.name)

    def _in_parallel(self, node: Place, within: str, path: str) -> str:
        if node.kind == "history":
            return within
        if node.name not in self.nodes[within].entry["regions"]:
            regions = ", ".join(f"{within}.{name}" for name in self.nodes[within].entry["regions"])
            self._fault(path, f"{within!r} is parallel: name the region", f"one of {regions}")
            return MACHINE
        if node.kind != "atomic":
            return within
        region = self.nodes[f"{within}.{node.name}"]
        if region.name not in self.nodes[within].children:
            self.nodes[within].children.append(region.name)
        return region.name

    def _known(self, node: Place, key: str) -> None:
        for name in listed(node.entry.get(key)):
            if name not in self.states:
                self.broken = True
                self.draft.unknown(f"{node.path}.{key}".lstrip("."), "state", name, self.states)

    def _begins(self, node: Place) -> None:
        """What is entered by default is inside."""
        if node.kind not in ("compound", "machine", "history"):
            return
        key, around = ("to", node.parent) if node.kind == "history" else ("initial", node.name)
        path, names = f"{node.path}.{key}".lstrip("."), listed(node.entry[key])
        for name in names:
            if around in self.nodes[name].chain[1:] and (node.kind != "history" or self.nodes[name].kind != "history"):
                continue
            if node.kind == "history":
                message = f"{name!r} is not a state inside {around or 'the machine'!r}"
                mend = "name one whose history this is"
            else:
                message, mend = f"{name!r} is not inside {around!r}", f"name a state with in: {around}"
            self._fault(path, message, mend)
        self.at_once(names, path)

    def _number(self, name: str, chain: tuple[str, ...]) -> None:
        node = self.nodes[name]
        if len(chain) > MAX_NESTING:
            self._fault(f"{node.path}.in", f"states are nested more than {MAX_NESTING} deep", "flatten them")
            return
        node.index = len(self.order)
        self.order.append(name)
        node.chain = (name, *chain)
        if node.kind == "parallel":
            regions = node.entry["regions"]
            children = [r if r in node.children else f"{name}.{r}" for r in regions]
            children += sorted(child for child in node.children if self.nodes[child].kind == "history")
        else:
            first = listed(node.entry.get("initial"))
            children = sorted(node.children, key=lambda child: (child not in first, child))
        node.children = children
        for child in children:
            self._number(child, node.chain)


def listed(names: str | Sequence[str] | None) -> list[str]:
    """One name, or several."""
    return [] if names is None else [names] if isinstance(names, str) else list(names)
