"""Steps that wait for money: whatever is set and deleted, a dict says the same, and one's own come in order."""

from __future__ import annotations

import random

import pytest

from agentflow.core.waiting import NOBODY, Shortage


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_mapping_whose_own_steps_come_in_order(seed: int) -> None:
    chance = random.Random(seed)
    waiting, known = NOBODY, dict[int, Shortage]()
    for _ in range(400):
        step, before, as_before = chance.randrange(1, 600), waiting, dict(known)
        if step in known and chance.random() < 0.7:
            waiting = waiting.delete(step)
            del known[step]
        else:
            known[step] = Shortage(chance.choice(["run", "tenant"]), "total", step)
            waiting = waiting.set(step, known[step])
        assert dict(before) == as_before, "what was is as it was"
        assert (dict(waiting), len(waiting), bool(waiting)) == (known, len(known), bool(known))
        assert list(waiting.own()) == sorted(each for each, shortage in known.items() if shortage.scope == "run")
    with pytest.raises(KeyError):
        waiting.delete(1_000)
