"""Which task may run next, of tasks that depend on nothing: they are made when they are handed out and forgotten when
they are done, so that a plan of any length needs the memory of the tasks in flight.

It is ``Frontier`` for such plans, with one difference: a key that it does not know counts as done, since it keeps no
list of what is.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.plan.tasks import Task, Tasks
from pipeline.runtime.frontier import DEFAULT_MAX_RETRIES, Counts, Failure, State


@dataclass(slots=True)
class _Open:
    """A task that was handed out and is not done.

    Attributes:
        task: itself.
        order: its place in the plan.
        losses: so far.
        running: or it waits to be tried again.
    """

    task: Task
    order: int
    losses: int = 0
    running: bool = True


class Stream:
    """The tasks of one stage and what may run next.

    Args:
        tasks: without dependencies, of one priority, keys unique.
        max_retries: how often a task may be lost (``fail(..., transient=True)``) and still be tried again.
    """

    def __init__(self, tasks: Tasks, max_retries: int = DEFAULT_MAX_RETRIES):
        self._max_retries = max_retries
        self._fresh: Iterator[Task] = iter(tasks)
        self._untaken = len(tasks)
        self._open: dict[str, _Open] = {}
        self._again: list[tuple[int, str]] = []
        self._running = self._done = 0
        self._failures: dict[str, Failure] = {}

    def take(self, count: int) -> list[Task]:
        """Up to ``count`` ready tasks in plan order; from now on they run."""
        taken: list[Task] = []
        while self._again and len(taken) < count:
            order, key = heapq.heappop(self._again)
            entry = self._open.get(key)
            # A ready task that a late result completed leaves its place in the heap behind.
            if entry is not None and not entry.running and entry.order == order:
                entry.running = True
                taken.append(entry.task)
        while self._untaken and len(taken) < count:
            task = next(self._fresh)
            self._open[task.key] = _Open(task, -self._untaken)
            self._untaken -= 1
            taken.append(task)
        self._running += len(taken)
        return taken

    def complete(self, key: str) -> bool:
        """The task's records are safe. True the first time; False for a repetition, or if it failed for good."""
        entry = self._open.pop(key, None)
        if entry is None:
            return False
        self._running -= entry.running
        self._done += 1
        return True

    def fail(self, key: str, error: str, transient: bool) -> bool:
        """The task raised (``transient=False``) or its worker was lost (True). True: it will be tried again."""
        entry = self._open.get(key)
        if entry is None or not entry.running:
            return False
        losses = entry.losses + transient
        if transient and losses <= self._max_retries:
            entry.losses = losses
            self._make_ready(key, entry)
            return True
        del self._open[key]
        self._running -= 1
        self._failures[key] = Failure(error, attempts=losses + (not transient), transient=transient)
        return False

    def requeue(self, key: str) -> None:
        """A running task was handed back without having begun: ready again, and no retry is used up."""
        entry = self._open.get(key)
        if entry is not None and entry.running:
            self._make_ready(key, entry)

    @property
    def finished(self) -> bool:
        """Nothing is running and nothing will ever become ready."""
        return not self._open and not self._untaken

    @property
    def counts(self) -> Counts:
        return Counts(
            waiting=0, ready=self._untaken + len(self._open) - self._running, running=self._running,
            done=self._done, failed=len(self._failures), blocked=0,
        )  # fmt: skip

    @property
    def failures(self) -> dict[str, Failure]:
        """The tasks that failed for good, in the order in which they did."""
        return dict(self._failures)

    def state(self, key: str) -> State:
        entry = self._open.get(key)
        if entry is None:
            return State.FAILED if key in self._failures else State.DONE
        return State.RUNNING if entry.running else State.READY

    def losses(self, key: str) -> int:
        """How often the running or ready task was lost so far."""
        entry = self._open.get(key)
        return 0 if entry is None else entry.losses

    def _make_ready(self, key: str, entry: _Open) -> None:
        entry.running = False
        self._running -= 1
        heapq.heappush(self._again, (entry.order, key))
