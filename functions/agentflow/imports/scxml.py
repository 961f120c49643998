"""SCXML 1.0 as a plan/v1 state machine: ``read_scxml``.

States, regions, history and transitions are said as they are. What SCXML has and a plan has not is said another way:
first values by a state ``start``, ``In('s')`` by a variable that entering and leaving ``s`` set, sends by timers
(``scxml_sends``), a condition around ``raise`` by further transitions. The semantics are those of the recommendation's
appendix D; where ours differ is in schemas/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

from agentflow.imports.block import FALSE, TRUE, Block, both
from agentflow.imports.findings import Findings, Imported
from agentflow.imports.fitting import fit_machine
from agentflow.imports.naming import TooLong, field_name, state_name
from agentflow.imports.scxml_content import Content, Place, timer_flag
from agentflow.imports.scxml_data import first_values
from agentflow.imports.scxml_events import ERROR, NOTHING, Events, done
from agentflow.imports.scxml_sends import Sends, sent_event, sites
from agentflow.imports.scxml_states import State, States
from agentflow.imports.scxml_tasks import Tasks
from agentflow.imports.scxml_timers import with_timers
from agentflow.imports.scxml_ways import Ways, written
from agentflow.imports.syntax import Binary, Literal, Member, Name, Node
from agentflow.imports.writing import write
from agentflow.imports.xml import Element, read

FAILURES = ("fail", "failed", "failure", "error")
_DATAMODELS = ("", "null", "ecmascript")
_ZEROS = {"int": "0", "double": "0.0", "string": '""', "bool": "false", "list(json)": "[]"}
Table = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """``visits``: how often a state of a loop may be entered; ``steps``: limits.steps; ``failures``: the ids of
    top-level final states that are failures."""

    visits: int = 1_000
    steps: int = 1_000
    failures: tuple[str, ...] = FAILURES


def read_scxml(data: bytes, options: Options = Options()) -> Imported:
    """The plan of an SCXML document; ``Invalid`` when it is none, or means what plan/v1 cannot say."""
    root = read(data)
    findings = Findings()
    if root.tag != "scxml":
        findings.refuse(root, "is not an SCXML document", "give one whose root is <scxml>")
        findings.check()
    if root.get("datamodel") not in _DATAMODELS:
        findings.refuse(root, f"the datamodel {root.get('datamodel')[:40]!r} is not read", "use ecmascript or null")
    if root.get("binding") == "late" and any(state.element.all("datamodel") for state in States(root, Findings()).all):
        findings.refuse(root, "binds data late", "give first values in <onentry>")
    document: Table = {}
    idle: frozenset[str] = frozenset()
    try:
        document, idle = _document(root, options, findings)
    except TooLong as fault:  # of an event or a variable; those of states are refused where they are
        findings.refuse(root, str(fault), "choose a shorter one")
    findings.check()
    fit_machine(document, options.visits, findings, idle)
    findings.check()
    return Imported(document, tuple(findings.left_out), tuple(findings.notes))


def _document(
    root: Element, options: Options, findings: Findings, *, fails: bool = False, errs: bool = False
) -> tuple[Table, frozenset[str]]:
    """The document and its idle states. Whether some expression may fail (``fails``), and some content surely does
    (``errs``), is known when it is made; then it is made again with that."""
    mapping = _Mapping(root, options, findings, fails=fails, errs=errs)
    said = mapping.document()
    now_fails, now_errs = write(said, mapping.first, findings) or fails, mapping.content.errs or errs
    if (now_fails, now_errs) != (fails, errs):
        return _document(root, options, findings, fails=now_fails, errs=now_errs)
    _begin_at_once(said, mapping.start)
    return said, frozenset(mapping.ways.idle)


def _begin_at_once(document: Table, start: str) -> None:
    """Variables begin at zero: what sets them to that is left out, and a state ``start`` that does nothing more."""
    if not start:
        return
    states, types = document["states"], document["vars"]
    (way,) = states[start]["transitions"]
    sets = {name: text for name, text in way.pop("set", {}).items() if _ZEROS.get(types[name]) != text}
    if sets:
        states[start]["transitions"] = [{"set": sets, **way}]
        return
    if len(way) == 1:
        del states[start]
        for around in (document, *states.values()):
            if around.get("initial") == start:
                around["initial"] = way["to"]


class _Mapping:
    """One pass over a document. Its result has ``Said`` in place of expressions."""

    def __init__(self, root: Element, options: Options, findings: Findings, *, fails: bool, errs: bool) -> None:
        self.root = root
        self.options = options
        self.findings = findings
        self.fails = fails
        self.states = States(root, findings)
        self.data = first_values(self.states, findings)
        sent = [sent_event(site.element) for site in sites(self.states, "raise", "send")]
        sent += [ERROR] if errs else []
        self.events = Events(self.states, [name for name in sent if name])
        self.sends = Sends(self.states, self.events, findings)
        self.content = Content(self.states, self.events, self.sends, self.data, findings)
        for around in self.events.raised_done:
            for region in around.children if around.kind == "parallel" else ():
                self._is_over(region)
        self.tasks = Tasks(self.content, findings)
        self.made: Table = {}
        self.first: dict[str, Node] = {}
        self.start = ""
        taken = {field_name(name) for name in self.data}
        ignored = "ignored" if "ignored" not in taken else "ignored_event"
        self.ways = Ways(self.content, self.first, findings, ignored=ignored, fails=fails)

    def document(self) -> Table:
        """Everything, in the order people write it."""
        for state in self.states.all:
            self._state(state)
        self._first_values()
        initial = self._initial(self.states.machine)
        if self.sends.timers:
            self.made, initial = with_timers(self.made, initial, self.sends, self.ways)
        named = self.findings.named(state_name, self.root.get("name") or "machine", self.root, "machine")
        document: Table = {  # in the order in which people write it
            "agentflow": "plan/v1", "kind": "fsm", "name": named, "limits": {"steps": self.options.steps},
            "vars": {}, "tasks": self.tasks.made, "initial": initial, "states": self.made,
        }  # fmt: skip
        if self.fails:
            ignoring = self.ways.ignoring(Member(Name("event"), Literal("message")))
            document["transitions"] = [{"event": "error", "set": ignoring}]
        return document

    def _first_values(self) -> None:
        """What variables are to begin with, in the plan's names, those that the import makes among them."""
        self.first |= {field_name(name): value for name, value in self.data.items()}
        self.first |= dict.fromkeys(self.content.inside.values(), FALSE)
        self.first |= dict.fromkeys(self.content.carried.values(), NOTHING)
        if self.content.never:
            self.first[self.content.never] = Literal("")
        for send in self.sends.timers:
            self.first[timer_flag(self.sends, send, "send")] = Literal(0)
            self.first[timer_flag(self.sends, send, "cancel")] = FALSE

    # -- states

    def _state(self, state: State) -> Table:
        entry: Table = {}
        self.made[state.name] = entry
        if state.parent is not None and state.parent.kind != "machine":
            entry["in"] = state.parent.name
        if state.kind == "history":
            return self._history(state, entry)
        if state.kind == "final":
            entry["final"] = self._outcome(state)
        elif state.kind == "parallel":
            entry["regions"] = self._regions(state)
        elif state.kind == "compound":
            entry["initial"] = self._initial(state)
        elif state.element.all("invoke"):
            entry["run"] = self.tasks.of(state)
        self._action(entry, "entry", self._entry(state), state.element)
        self._action(entry, "exit", self._exit(state), state.element)
        transitions = self.ways.delays(state)
        for element in state.element.all("transition"):
            transitions += self.ways.of(state, element)
        transitions += self.ways.done(state, transitions)
        if transitions:
            entry["transitions"] = transitions
        if state.kind != "atomic" and state.element.all("invoke"):
            message = "only a state without inner states runs a task"
            self.findings.refuse(state.element, message, "move <invoke> into one")
        return entry

    def _outcome(self, state: State) -> str:
        top = state.parent is not None and state.parent.kind == "machine"
        return "failure" if top and state.id in self.options.failures else "success"

    def _regions(self, state: State) -> list[str]:
        regions = [child.name for child in state.children if child.kind != "history"]
        if not regions:
            self.findings.refuse(state.element, "has no regions", "make it a <state>")
        if len(regions) == 1:  # a plan has at least two; this one is done from the beginning
            region, end = self.states.fresh(f"{state.name}-beside"), self.states.fresh(f"{state.name}-nothing")
            self.made[region] = {"in": state.name, "initial": end}
            self.made[end] = {"in": region, "final": "success"}
            regions.append(region)
        return regions

    def _history(self, state: State, entry: Table) -> Table:
        entry["history"] = "deep" if state.element.get("type") == "deep" else "shallow"
        around = state.parent
        assert around is not None
        if around.kind == "machine":
            self.findings.refuse(state.element, "is the whole machine's history", "put a state around all others")
        way = state.element.first("transition")
        targets = self.states.targets(way) if way is not None else []
        if way is None:
            targets = [child for child in around.children if child.kind != "history"][:1]
            self.findings.note(state.element, "has no transition: the first state stands in")
        entry["to"] = written(targets) if targets else ""
        if way is not None:
            self._action(entry, "entry", self.content.run(way.children, Block(), Place(state)), way)
        return entry

    def _initial(self, state: State) -> str | list[str]:
        """The names of the states that are entered first: those that are named, or one that leads there."""
        at = state.element
        way = at.first("initial")
        way = way.first("transition") if way is not None else None
        if way is not None:
            targets = self.states.targets(way)
        elif "initial" in at.attributes:
            targets = self.states.targets(at, "initial")
        else:
            targets = [child for child in state.children if child.kind != "history"][:1]
        if not targets:
            if not state.children:
                self.findings.refuse(at, "has no states", "add one")
            return ""
        block = Block()
        if state.kind == "machine":
            for name, value in self.first.items():
                if value != NOTHING:
                    block.sets[name] = value
        for target in targets:
            if not state.has(target):
                self.findings.refuse(at, f"{target.id[:64]!r} is not inside it", "begin with a state that is")
        content = way.children if way is not None else []
        if not content and not block.sets:
            return written(targets)
        if state.within_parallel and any(each.element.all("onentry") for each in self.states.all):
            mend = "do on entry what is to be done"
            self.findings.refuse(way or at, "does something when it begins, beside other regions", mend)
        self.content.run(content, block, Place(state))
        start = self.states.fresh("start" if state.kind == "machine" else f"{state.name}-start")
        entry: Table = {"in": state.name} if state.kind != "machine" else {}
        if state.kind == "machine":
            self.start = start
        self.made[start] = {**entry, "transitions": [self.ways.one(way or at, {"to": written(targets)}, TRUE, block)]}
        return start

    # -- what is done

    def _entry(self, state: State) -> Block:
        block = Block()
        if state in self.content.inside:
            block.assign(self.content.inside[state], TRUE)
        for element in state.element.all("onentry"):
            self.content.run(element.children, block, Place(state))
        if state.kind == "final":
            self._done(state, block)
        return block

    def _done(self, state: State, block: Block) -> None:
        """A final state says that the state around it is done; and its parallel state, when the other regions are."""
        around = state.parent
        if around in self.events.raised_done:
            assert around is not None
            self.content.done(done(around), state, block)
        if around is None or (parallel := around.parent) not in self.events.raised_done or parallel is None:
            return
        if parallel.kind == "parallel":
            over: Node = TRUE
            for region in parallel.children:
                if region is not around and region.kind != "history":
                    over = both(over, self._is_over(region))
            block.raised(done(parallel), TRUE if over == TRUE else block.seen(over))

    def _is_over(self, region: State) -> Node:
        """SCXML's isInFinalState."""
        inner = [child for child in region.children if child.kind != "history"]
        if region.kind == "parallel":
            over: Node = TRUE
            return reduce(both, map(self._is_over, inner), over)
        ends = [self.content.is_inside(child) for child in inner if child.kind == "final"]
        return reduce(lambda one, other: Binary("||", one, other), ends) if ends else FALSE

    def _exit(self, state: State) -> Block:
        block = Block()
        for element in state.element.all("onexit"):
            self.content.run(element.children, block, Place(state))
        if state in self.content.inside:
            block.assign(self.content.inside[state], FALSE)
        return block

    def _action(self, entry: Table, key: str, block: Block, at: Element) -> None:
        action = self.ways.acts(block, at)
        if action:
            entry[key] = action
