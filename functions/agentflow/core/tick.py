"""One tick of a behaviour tree: the working state that its nodes' behaviours share.

The cursor: ``n`` what running nodes (and remembered ones) need to know, ``run`` the node of each running step,
``items`` the lists that maps run over, ``why`` the last failure; in a tree with timers ``timers``, the node of each,
and ``timer``, the last number given; in one with subtrees ``own``, their variables (see ``instances``), and ``owned``,
the last number given; in one with tries ``loose``, the catches that run, ``loosed``, the last number given, and
``outcome``, how the root has ended while catches still run.

Keys are node numbers in document order, behind the scope: ``5.2/6`` is node 6 for item 2 of map 5, ``7/9`` node 9
inside the subtree 7, ``~3/8`` node 8 in the third catch that was started. ``6!`` says that a node with conditions runs
or, under a reactive one, how it has ended; ``6m`` where a sequence with memory goes on.
Only active items have entries, and those may be 10,000: the tables are persistent maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentflow.core import halting
from agentflow.core.entries import EMPTY, Entries, Journal, put, take, undo
from agentflow.core.instances import Instances
from agentflow.core.moves import Elapsed, PlanEvent
from agentflow.core.node import FAILURE, REMEMBERED, RUNNING, SKIPPED, SUCCESS, Conditions, Node, Tree
from agentflow.core.scopes import NO_LOCALS, Scopes
from agentflow.core.turn import Turn, reason
from agentflow.core.types import JSON

MAX_TICKS = 20_000

RECALL = {said: status for status, said in REMEMBERED.items()}
NO_FAULT = ("", "")


class Mark(NamedTuple):
    """A moment of a tick that can be gone back to."""

    written: int
    halts: int
    cleared: int
    fresh: int
    vars: dict[str, JSON]
    assigned: dict[str, JSON]
    why: str
    hit: str


class Tick(Scopes):
    """The working copy of one advance: ``n`` and the other tables are this tick's own.

    ``strand`` is where the event goes: '' the root, or the number of a catch that runs by itself. ``fresh`` are the
    catches let go in this tick, which have not been ticked yet.
    """

    __slots__ = (
        "_journal",
        "behaviour",
        "ending",
        "event",
        "fault",
        "fresh",
        "hit",
        "loosed",
        "moved",
        "outcome",
        "reviewing",
        "running",
        "strand",
        "ticks",
        "timer",
        "timers",
        "trail",
        "why",
    )

    def __init__(
        self, turn: Turn, tree: Tree, cursor: Mapping[str, Any], behaviour: dict[str, Behaviour]
    ) -> None:
        self.turn = turn
        self.tree = tree
        self.behaviour = behaviour
        self._journal: Journal = []
        journal = self._journal
        self.n = Entries(cursor["n"], journal)
        self.running = Entries(cursor["run"], journal)
        self.items = Entries(cursor["items"], journal)
        self.timers = Entries(cursor.get("timers", EMPTY), journal)
        self.timer: int = cursor.get("timer", 0)
        if tree.scoped:
            own = Entries(cursor.get("own", EMPTY), journal)
            self.instances = Instances(tree.nodes, turn, own, cursor.get("owned", 0))
        self.loose = Entries(cursor.get("loose", EMPTY), journal)
        self.loosed: int = cursor.get("loosed", 0)
        self.fresh: list[str] = []
        self.outcome: list[Any] | None = cursor.get("outcome")
        self.why: str = cursor.get("why", "")
        self._forget_scopes()
        self.assigned = bool(turn.assigned)  # what is fixed may change conditions, too
        self.reviewing = False
        self.ending = False
        self.moved = False
        self.ticks = 0
        self.hit = ""
        self.strand = ""
        self.event: PlanEvent | None = None
        self.fault = NO_FAULT  # code and message of the task that has just failed
        self.trail: dict[str, tuple[int, int]] = {}

    def deliver(self, key: str, event: PlanEvent) -> None:
        """Note where ``event`` goes: ``trail`` says, scope by scope, which node holds the leaf, and which item."""
        self.hit = key
        self.event = event
        self._follow(key)

    def _follow(self, key: str) -> None:
        scope = ""
        *parts, leaf = key.split("/")
        for part in parts:
            if part[0] == "~":  # a catch: the way to its try comes before, unless it runs by itself
                at = self.loose.get(part[1:])["at"]
                if at:
                    self._follow(at)
                else:
                    self.strand = part[1:]
            else:
                index, _, item = part.partition(".")
                self.trail[scope] = (int(index), int(item or -1))
            scope += part + "/"
        self.trail[scope] = (int(leaf), -1)

    def tick(self, node: Node, scope: str) -> int:
        """The node's status now."""
        self.ticks += 1
        if self.ticks > MAX_TICKS:
            self.turn.fault(node.path, f"more than {MAX_TICKS:,} nodes ticked without a task in between")
        if node.conditions is not None:
            return self._conditional(node, node.conditions, scope)
        return self.behaviour[node.kind](self, node, scope)

    def _conditional(self, node: Node, conditions: Conditions, scope: str) -> int:
        """BehaviorTree.CPP's pre- and post-conditions, in its order."""
        mark = f"{scope}{node.key}!"
        held = self.n.get(mark)
        runs = held is True
        status = self._before(node, conditions, scope, runs=runs)
        self.fault = NO_FAULT
        if status == RUNNING:
            status = self.behaviour[node.kind](self, node, scope)
        elif runs:
            self.halt(node, scope)
        elif self.tree.ir >= 2 and (held is not None or (node.keep and node.delayed)):
            halting.drop(self, node, scope)  # its guard has flipped: what it had finished would be done anew
        if status == RUNNING:
            if not runs:
                self.n[mark] = True
            return RUNNING
        said = None if status == SKIPPED else REMEMBERED[status]
        if held == said:
            return status  # looked at again, and it has ended so before
        self.n.pop(mark)
        if said is not None:
            if node.keep:
                self.n[mark] = said
            name = "on_success" if status == SUCCESS else "on_failure"
            for sets, key in ((getattr(conditions, name), name), (conditions.post, "post")):
                if sets:
                    bound = self._failure() if key == "on_failure" and node.kind == "task" else NO_LOCALS
                    self.assign(sets, scope, node.path, key, bound)
        return status

    def _failure(self) -> dict[str, JSON]:
        """What a task's ``on_failure`` sees as ``event``; the code is '' where its own conditions have decided."""
        code, message = self.fault
        return {"event": {"name": "failed", "code": code, "message": message}}

    def _before(self, node: Node, conditions: Conditions, scope: str, *, runs: bool) -> int:
        """What the conditions decide; RUNNING when the node is to be ticked."""
        if not runs:
            for expr, name, status in (
                (conditions.fail_if, "fail_if", FAILURE),
                (conditions.success_if, "success_if", SUCCESS),
                (conditions.skip_if, "skip_if", SKIPPED),
            ):
                if expr is not None and self.value(expr, scope, f"{node.path}.{name}"):
                    if status == FAILURE:
                        self.why = reason(f"{node.path}.{name}", f"`{expr.source}` holds")
                    return status
        holds = conditions.holds
        # The pass that delivers an event lets it arrive; the review after it looks.
        if holds is None or (runs and not self.reviewing):
            return RUNNING
        return RUNNING if self.value(holds, scope, node.path + ".while") else SKIPPED

    def remember(self, node: Node, key: str, status: int) -> int:
        """The node has finished: its entry goes, or says how it ended where that is kept. What was skipped at once is
        asked again, but what has waited for it would wait anew."""
        self.n.pop(key)
        if node.keep and (status != SKIPPED or (node.delayed and not node.undecided)):
            self.n[key] = REMEMBERED[status]
        return status

    def forget(self, node: Node, scope: str) -> None:
        """What ``node``, which does not run, remembers beyond its end: there will be no such place again."""
        if not node.lasting:
            return
        key = scope + node.key
        if node.kind == "once":
            self.n.pop(key)
        elif node.memory:
            self.n.pop(key + "m")
        if node.kind != "map":  # its items are forgotten as they end
            for child in node.children:
                self.forget(child, key + "/" if node.kind == "subtree" else scope)

    # ---------------------------------------------------------------------------------- steps, halts and timers

    def start(self, node: Node, scope: str) -> None:
        """Start the node's task."""
        assert node.task is not None
        key = scope + node.key
        started = self.turn.started(node.task, node.inputs, self.local(scope), self.names(scope))
        put(self._journal, self.turn.starts, key, started)
        self.n[key] = 0  # the number is given when the tick is over
        self.moved = True

    def halt(self, node: Node, scope: str) -> None:
        """Stop what runs below ``node`` and forget what is remembered there."""
        halting.halt(self, node, scope)

    def abandon(self, node: Node, scope: str) -> None:
        """Halt it, whatever else goes wrong: why it cannot go on is known."""
        before, self.ending = self.ending, True
        self.halt(node, scope)
        self.ending = before

    def halt_step(self, key: str, step: int) -> None:
        """Nobody waits for the task of the leaf ``key`` any more."""
        self.moved = True
        if step:
            self.running.pop(str(step))
            self.turn.halts.append(step)
        else:  # started in this very tick: it never was
            take(self._journal, self.turn.starts, key)

    def alarm(self, node: Node, key: str) -> None:
        """Set the node's timer; its number is given when the tick is over."""
        put(self._journal, self.turn.alarms, key, node.for_ms)
        self.moved = True

    def clear(self, key: str, held: list[int]) -> None:
        """Nobody waits for the node's timer any more."""
        if take(self._journal, self.turn.alarms, key) is None and held[0]:
            self.turn.cleared.append(held[0])
            self.timers.pop(str(held[0]))

    def rang(self, key: str, held: list[int]) -> bool:
        """Whether the event says that the node's time is over; said once."""
        if key != self.hit:
            return False
        self.hit = ""
        self.moved = True
        self.timers.pop(str(held[0]))
        return True

    # ---------------------------------------------------------------------------------------------- taking back

    def mark(self) -> Mark:
        """This moment."""
        turn = self.turn
        lengths = (len(self._journal), len(turn.halts), len(turn.cleared), len(self.fresh))
        return Mark(*lengths, turn.vars, dict(turn.assigned), self.why, self.hit)

    def undo(self, mark: Mark, strand: str) -> None:
        """Back to that moment of ``strand``. The event that was to arrive in it has arrived, without effect; one for a
        catch that a try in it waits for is still to arrive."""
        turn = self.turn
        undo(self._journal, mark.written)
        del turn.halts[mark.halts :], turn.cleared[mark.cleared :], self.fresh[mark.fresh :]
        turn.vars, turn.assigned, self.why, self.hit = mark.vars, mark.assigned, mark.why, mark.hit
        self._forget_scopes()
        if not self.hit or _strand(self.hit) != strand:
            return
        if isinstance(self.event, Elapsed):
            self.timers.pop(str(self.event.timer))
            self.n[self.hit] = [0, *self.n.get(self.hit)[1:]]
        else:
            self.running.pop(str(self.event.step))  # type: ignore[union-attr]
            self.n.pop(self.hit)
        self.hit = ""


def _strand(key: str) -> str:
    """The number of the catch that the node is in; '' for none."""
    return key[1 : key.index("/")] if key[0] == "~" else ""


Behaviour = Callable[[Tick, Node, str], int]
