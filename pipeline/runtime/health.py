"""Which nodes do their work: a pure state machine, told of every failure and every success."""

from __future__ import annotations

from collections import Counter, defaultdict

STRIKES = 3
"""Tasks that a node failed and another completed, after which it is avoided."""

TOLERATED_SHARE = 0.1
"""A node that completes ten tasks for each such failure is slow rather than broken, and kept."""

MOST_NODES = 2
"""Nodes that fail a task before the task is to blame."""


class Health:
    """Failures by node.

    A failure says little: the task may be at fault. Only when another node completes the same task was it the node's.
    But a node that fails at once would go through all tasks there are before one of them is completed elsewhere: as
    long as `STRIKES` of its failures are open, it waits for the verdict.
    """

    def __init__(self) -> None:
        self._failed_on: dict[str, set[str]] = {}
        self._strikes: defaultdict[str, int] = defaultdict(int)
        self._completed: defaultdict[str, int] = defaultdict(int)

    def failed(self, key: str, node: str) -> None:
        """A node failed a task, or died with it."""
        self._failed_on.setdefault(key, set()).add(node)

    def completed(self, key: str, node: str) -> None:
        self._completed[node] += 1
        for other in self._failed_on.pop(key, set()) - {node}:
            self._strikes[other] += 1

    def forget_tasks(self) -> None:
        """Other tasks come, which may have the keys of earlier ones; what is known of nodes stays."""
        self._failed_on.clear()

    def failed_on(self, key: str) -> frozenset[str]:
        """Nodes that failed a task which none has completed."""
        return frozenset(self._failed_on.get(key, ()))

    def deserves_another(self, key: str) -> bool:
        """Whether a task that raised may be tried by one more node, if there is one."""
        return len(self._failed_on.get(key, ())) < MOST_NODES

    @property
    def avoided(self) -> frozenset[str]:
        """Nodes that get no more tasks as long as there are others."""
        guilty = {
            node
            for node, count in self._strikes.items()
            if count >= STRIKES and count > TOLERATED_SHARE * self._completed[node]
        }
        open_failures = Counter(
            node for nodes in self._failed_on.values() if len(nodes) == 1 for node in nodes
        )
        return frozenset(guilty | {node for node, count in open_failures.items() if count >= STRIKES})
