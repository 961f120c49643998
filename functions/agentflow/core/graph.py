"""Loops of a graph: its strongly connected components, without recursion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


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
