"""Where a run is, on its picture: what runs, what is around that, what has ended, and how many of several."""

from __future__ import annotations

from typing import Any

from core.driving import Drive, machine, tree

from agentflow.picture import position
from agentflow.picture.diagram import Mark

ENDS = {"event": "done", "to": "end"}


class Watched(Drive):
    """A run whose steps are followed as ``agentflow graph`` follows them."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(document)
        self.places: dict[int, str] = {}
        self.outcomes: dict[int, str] = {}
        self.been: set[str] = set()

    def marks(self, script: str, **values: Any) -> dict[str, Mark]:
        for event in script.split():
            before = set(self.running)
            self.happen(event, **values)
            assert self.state is not None
            ended = "failed" if event.endswith(("!", "~")) else "succeeded"
            self.outcomes |= dict.fromkeys(before - set(self.running), ended)
            self.been |= position.entered(self.plan, self.state)
            for step in self.running:
                place = position.started_at(self.plan, self.state, step)
                if place is not None:
                    self.places[step] = place
        return position.marks(self.plan, self.state, self.places, self.outcomes, self.been)


def test_a_tree_shows_what_runs_and_what_has_ended() -> None:
    run = Watched(tree({"sequence": ["a", {"fallback": ["b", "c"]}, "d"]}))
    assert run.marks("> a b!") == {
        "n0": Mark("around"), "n1": Mark("done"), "n2": Mark("around"), "n3": Mark("failed"), "n4": Mark("active"),
    }  # fmt: skip
    assert run.marks("c d") == {
        "n1": Mark("done"),
        "n3": Mark("failed"),
        "n4": Mark("done"),
        "n5": Mark("done"),
    }


def test_a_map_says_how_far_it_is() -> None:
    root = {"map": {"retry": "i", "max": 2}, "over": "xs", "max": 9, "concurrency": 2, "fail_at": 3}
    run = Watched(tree(root))
    found = run.marks("> i i! i", xs=["p", "q", "r", "s"])
    assert found["n0"] == Mark("around", "2 of 4")
    assert found["n2"] == Mark("active", "2 succeeded, 1 failed, 2 running")
    found = run.marks("i!")
    assert found["n0"] == Mark("around", "3 of 4, 1 failed")
    assert found["n2"] == Mark("active", "2 succeeded, 2 failed, 1 running")


def test_a_loop_says_which_time_it_is() -> None:
    found = Watched(tree({"retry": "a", "max": 5})).marks("> a! a!")
    assert found["n0"] == Mark("around", "time 3")
    assert found["n1"] == Mark("active", "2 failed, 1 running")


def test_a_timer_that_runs_is_shown() -> None:
    found = Watched(tree({"delay": "5s", "child": "a"})).marks(">")
    assert found == {"n0": Mark("active")}


def test_a_machine_shows_where_it_is_and_has_been() -> None:
    states = {
        "one": {"run": "a", "transitions": [{"event": "done", "to": "two"}]},
        "two": {"initial": "in", "visits": 3, "transitions": [{"event": "done", "to": "ok"}]},
        "in": {"in": "two", "run": "b", "transitions": [{"event": "done", "to": "out"}]},
        "out": {"in": "two", "run": "c", "transitions": [{"event": "failed", "to": "two"}, ENDS]},
        "end": {"in": "two", "final": "success"},
        "ok": {"final": "success"},
    }  # fmt: skip
    run = Watched(machine(states))
    assert run.marks("> a b") == {
        "one": Mark("done"), "two": Mark("around", "entered 1×"), "in": Mark("done"), "out": Mark("active"),
    }  # fmt: skip
    assert run.marks("c!")["out"] == Mark("failed")
    assert run.marks("b c")["two"] == Mark("done")


def test_regions_show_which_of_them_has_ended() -> None:
    def state(region: str, task: str) -> dict[str, Any]:
        return {"in": "p", "run": task, "transitions": [{"event": "done", "to": f"{region}_ok"}]}

    states = {
        "p": {"regions": ["l", "r"], "transitions": [{"event": "done", "to": "ok"}]},
        "l": state("l", "a"), "r": state("r", "b"),
        "l_ok": {"in": "p.l", "final": "success"}, "r_ok": {"in": "p.r", "final": "success"},
        "ok": {"final": "success"},
    }  # fmt: skip
    found = Watched(machine(states)).marks("> a")
    assert found["l_ok"] == Mark("done") and found["l"] == Mark("done")
    assert found["r"] == Mark("active") and found["p"] == Mark("around") and found["p.r"] == Mark("around")
