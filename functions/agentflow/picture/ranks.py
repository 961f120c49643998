"""Ranks for a directed graph: which edges are turned round so that there are no cycles, and how far down nodes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Edge = tuple[int, int]

STEP = 2
"""Ranks that an edge goes down at least: its label is in between."""


def turned(count: int, edges: Sequence[Edge]) -> list[bool]:
    """Which edges lead back: to a node from which a search in the order of the nodes has come."""
    leaving: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for number, (source, target) in enumerate(edges):
        leaving[source].append((number, target))
    back = [False] * len(edges)
    seen, open_ = [False] * count, [False] * count
    for start in range(count):
        if seen[start]:
            continue
        seen[start] = open_[start] = True
        way: list[tuple[int, Iterator[tuple[int, int]]]] = [(start, iter(leaving[start]))]
        while way:
            node, rest = way[-1]
            for number, target in rest:
                back[number] = open_[target]
                if not seen[target]:
                    seen[target] = open_[target] = True
                    way.append((target, iter(leaving[target])))
                    break
            else:
                open_[node] = False
                way.pop()
    return back


def ranks(count: int, edges: Sequence[Edge]) -> list[int]:
    """How far down each node is, from 0 on, when every edge of a graph without cycles leads ``STEP`` down or more."""
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for upper, lower in edges:
        below[upper].append(lower)
        above[lower].append(upper)
    order: list[int] = [node for node in range(count) if not above[node]]
    found, waiting = [0] * count, [len(each) for each in above]
    for node in order:  # grows as nodes come to have nothing above them that is not in it
        for lower in below[node]:
            found[lower] = max(found[lower], found[node] + STEP)
            waiting[lower] -= 1
            if not waiting[lower]:
                order.append(lower)
    for node in order:  # what nothing leads to is close to where it leads
        if not above[node] and below[node]:
            found[node] = min(found[lower] for lower in below[node]) - STEP
    return found
