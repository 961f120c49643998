"""Graphs: their loops, what leads where, and what the ways weigh. Nothing here is recursive."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from heapq import heappop, heappush

Weighted = Sequence[Sequence[tuple[int, int]]]
"""Of each node where it leads, and what that weighs (0 or more)."""


def components(edges: Mapping[int, set[int]]) -> list[list[int]]:
    """The strongly connected components of the graph (Tarjan), each a list of nodes; deterministic."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for start in sorted(edges):
        if start in number:
            continue
        work: list[tuple[int, Iterator[int]]] = [(start, iter(sorted(edges[start])))]
        number[start] = low[start] = len(number)
        stack.append(start)
        on_stack.add(start)
        while work:
            node, rest = work[-1]
            for following in rest:
                if following not in number:
                    number[following] = low[following] = len(number)
                    stack.append(following)
                    on_stack.add(following)
                    work.append((following, iter(sorted(edges[following]))))
                    break
                if following in on_stack:
                    low[node] = min(low[node], number[following])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        component.append(member)
                        if member == node:
                            break
                    found.append(component)
    return found


def looping(edges: Mapping[int, set[int]]) -> list[list[int]]:
    """The components that a way leads back into: several nodes, or one with an edge to itself."""
    return [found for found in components(edges) if len(found) > 1 or found[0] in edges[found[0]]]


def leading_to(edges: Weighted, targets: Collection[int]) -> set[int]:
    """The nodes from which a way leads to one of ``targets``, and these."""
    before: list[list[int]] = [[] for _ in edges]
    for node, following in enumerate(edges):
        for after, _ in following:
            before[after].append(node)
    found, todo = set(targets), list(targets)
    while todo:
        for node in before[todo.pop()]:
            if node not in found:
                found.add(node)
                todo.append(node)
    return found


def lightest(edges: Weighted, start: int, targets: Collection[int]) -> int | None:
    """What the lightest way from ``start`` to one of ``targets`` weighs; None when there is none."""
    seen: set[int] = set()
    todo = [(0, start)]
    while todo:
        weight, node = heappop(todo)
        if node in targets:
            return weight
        if node not in seen:
            seen.add(node)
            for after, more in edges[node]:
                heappush(todo, (weight + more, after))
    return None


def heaviest(edges: Weighted, start: int) -> int | None:
    """What the heaviest way from ``start`` weighs; None when a loop makes it heavier each time round."""
    place: dict[int, int] = {}
    weights: list[int] = []
    for component in components({node: {after for after, _ in following} for node, following in enumerate(edges)}):
        members = set(component)
        weight = 0
        for node in component:
            place[node] = len(weights)
            for after, more in edges[node]:
                if after in members and more:
                    return None
                weight = max(weight, more + (0 if after in members else weights[place[after]]))
        weights.append(weight)
    return weights[place[start]]
