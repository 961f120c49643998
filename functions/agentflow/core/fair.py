"""Fair: a queue that tenants share, in which one tenant's thousands never stand before another's first.

Between tenants it is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each tenant has a tag that
grows by 1/weight for every item taken, and the smallest tag is next. Compared with deficit round robin it needs no
bursts to keep to the weights (a tenant of weight 100 is not served a hundred times in a row), and who comes new is
served next, not after a whole round. Within a tenant: the highest priority first, then the oldest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from heapq import heappop, heappush, heapreplace
from typing import Any, Generic, TypeVar

LOWEST, DEFAULT, HIGHEST = 0, 5, 9
FEW = 8

T = TypeVar("T")


class _Lane:
    """What one tenant has waiting: a queue per priority, and a bit for each that is not empty."""

    __slots__ = ("filled", "levels", "size", "stride", "tag")

    def __init__(self, stride: float) -> None:
        self.levels: list[deque[object] | None] = [None] * (HIGHEST + 1)
        self.filled = 0
        self.size = 0
        self.stride = stride
        self.tag = 0.0


class Fair(Generic[T]):
    """Items of many tenants. ``push`` and ``pop`` take O(log tenants that wait), O(1) for a single tenant.

    A tenant that waits for nothing saves nothing up: when it comes back it starts where the others are.
    """

    __slots__ = ("_clock", "_finish", "_heap", "_lanes", "_many", "_size", "_turn", "_weights")

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane] = {}
        self._heap: list[tuple[float, int, _Lane]] = []  # lanes that have something, by tag, then by arrival
        self._weights: dict[Hashable, int] = {}
        self._clock = 0.0  # the tag of whoever was served last
        self._finish = 0.0  # the largest tag that anybody was given
        self._many = 64  # lanes from which on it is worth looking for those that may be forgotten
        self._turn = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def tenants(self) -> int:
        """How many tenants have something waiting."""
        return len(self._heap)

    def waiting(self, tenant: Hashable) -> int:
        """How many items of a tenant wait."""
        lane = self._lanes.get(tenant)
        return lane.size if lane is not None else 0

    def weight(self, tenant: Hashable, weight: int) -> None:
        """A tenant's share beside others that wait as well; 1 unless said otherwise. ``ValueError`` below 1."""
        if weight < 1:
            raise ValueError(f"a weight is at least 1, not {weight}")
        if weight == 1:
            self._weights.pop(tenant, None)
        else:
            self._weights[tenant] = weight
        if (lane := self._lanes.get(tenant)) is not None:
            lane.stride = 1 / weight

    def weights(self, weights: Mapping[Any, int]) -> None:
        """The weights of all tenants; 1 for whom it does not name."""
        for tenant in self._weights.keys() - weights.keys():
            self.weight(tenant, 1)
        for tenant, weight in weights.items():
            self.weight(tenant, weight)

    def push(self, tenant: Hashable, item: T, priority: int = DEFAULT) -> None:
        """Add an item; ``priority`` 0 to 9, 9 first. ``IndexError`` or ``ValueError`` for another."""
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._open(tenant)
        bit = 1 << priority
        level = lane.levels[priority]
        if level is None:
            level = lane.levels[priority] = deque()
        level.append(item)
        if not lane.filled:
            if lane.tag < self._clock:
                lane.tag = self._clock
            self._turn += 1
            heappush(self._heap, (lane.tag, self._turn, lane))
        lane.filled |= bit
        lane.size += 1
        self._size += 1

    def pop(self) -> T:
        """Take the next item and charge its tenant. ``IndexError`` when nothing waits."""
        tag, _, lane = self._heap[0]
        item = self._take(lane)
        self._charge(lane, tag, 1)
        return item

    def turn(self, most: int) -> list[T]:
        """The next items, at most so many: of one tenant that has more than a few waiting, or of several that have
        only a few. Who has little to do is not held up by what is done for the others at the same time."""
        if not self._heap:
            return []
        tag, _, lane = self._heap[0]
        if lane.size > FEW:
            taken = [self._take(lane) for _ in range(min(most, lane.size))]
            self._charge(lane, tag, len(taken))
            return taken
        taken = []
        while self._heap and len(taken) < most and self._heap[0][2].size <= FEW:
            taken.append(self.pop())
        return taken

    def peek(self) -> T:
        """The item that ``pop`` would take. ``IndexError`` when nothing waits."""
        lane = self._heap[0][2]
        level = lane.levels[lane.filled.bit_length() - 1]
        return level[0]  # type: ignore[index,return-value]

    def drop(self) -> None:
        """Remove the item that ``pop`` would take, and charge nobody: it was not served."""
        lane = self._heap[0][2]
        self._take(lane)
        if not lane.filled:
            heappop(self._heap)

    def _charge(self, lane: _Lane, tag: float, count: int) -> None:
        """The lane at the head has been served: its next turn is later."""
        self._clock = tag
        lane.tag = tag = tag + count * lane.stride
        if tag > self._finish:
            self._finish = tag
        if lane.filled:
            self._turn += 1
            heapreplace(self._heap, (tag, self._turn, lane))
        else:
            heappop(self._heap)

    def _take(self, lane: _Lane) -> T:
        priority = lane.filled.bit_length() - 1
        level = lane.levels[priority]
        item = level.popleft()  # type: ignore[union-attr]
        if not level:
            lane.filled ^= 1 << priority
        lane.size -= 1
        self._size -= 1
        return item  # type: ignore[return-value]

    def _open(self, tenant: Hashable) -> _Lane:
        if len(self._lanes) >= self._many:
            self._forget()
        lane = self._lanes[tenant] = _Lane(1 / self._weights.get(tenant, 1))
        return lane

    def _forget(self) -> None:
        """Drop the lanes of tenants that wait for nothing and owe nothing: a new one would be the same."""
        if not self._heap:
            self._clock = self._finish  # whoever waits next waits alone
        idle = [t for t, lane in self._lanes.items() if not lane.filled and lane.tag <= self._clock]
        for tenant in idle:
            del self._lanes[tenant]
        self._many = 2 * len(self._lanes) + 64
