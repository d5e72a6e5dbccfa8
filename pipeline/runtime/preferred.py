"""Tasks that would rather go to a certain worker, and which of them goes where next: decided without I/O or clock.

A worker is given its own tasks a few at a time. What it has not begun waits here, where it may still be given to a
worker that has nothing to do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping


class Preferred[Item]:
    """Items that wait, by the worker that they prefer.

    Args:
        ahead: bundles that a worker has at most, the one that it is at among them.
    """

    def __init__(self, ahead: int):
        self._ahead = ahead
        self._waiting: dict[str, deque[Item]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, worker: str, item: Item) -> None:
        self._waiting.setdefault(worker, deque()).append(item)

    def next(self, under_way: Mapping[str, int], size: int) -> tuple[str, list[Item]] | None:
        """The next bundle and its worker, or None.

        Args:
            under_way: for every worker that is there, how many bundles it has.
            size: items in a bundle at most.
        """
        for worker, count in sorted(under_way.items(), key=lambda item: item[1]):
            own, room = self._waiting.get(worker), self._ahead - count
            if own and room > 0:
                return worker, [own.popleft() for _ in range(min(size, math.ceil(len(own) / room)))]
        return None

    def relieve(self, size: int) -> list[Item]:
        """Items for a worker that has nothing to do: half of those that wait for the one with the most, the last ones,
        at most `size`; none when nothing waits."""
        most = max(self._waiting.values(), key=len, default=None)
        if not most:
            return []
        return [most.pop() for _ in range(min(size, math.ceil(len(most) / 2)))]

    def orphans(self, present: Collection[str]) -> list[Item]:
        """Removes and returns what waits for workers that are not there."""
        gone = [worker for worker in self._waiting if worker not in present]
        return [item for worker in gone for item in self._waiting.pop(worker)]

    def remove(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Removes and returns the items of which `unwanted` is true."""
        removed: list[Item] = []
        for worker, items in self._waiting.items():
            removed += filter(unwanted, items)
            self._waiting[worker] = deque(item for item in items if not unwanted(item))
        return removed

    def clear(self) -> None:
        self._waiting.clear()
