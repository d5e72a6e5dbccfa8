"""Which task may run next: a pure state machine without I/O, clock or randomness.

Every task is in exactly one state::

    waiting ──(last dependency done)──▶ ready ──take──▶ running ──complete──▶ done
       │                                  ▲               │
       │                                  └── fail(transient), requeue
       └──(a dependency failed)──▶ blocked                └── fail ──▶ failed

Execution is at-least-once: a worker that was given up may still deliver. So a result is welcome whether the
task is running or ready again, and a second report about a task that is done or failed changes nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from pipeline.plan.tasks import Task

DEFAULT_MAX_RETRIES = 5


class State(Enum):
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many tasks are in each state."""

    waiting: int
    ready: int
    running: int
    done: int
    failed: int
    blocked: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task failed for good, after how many attempts; ``transient``: its retries were used up."""

    error: str
    attempts: int
    transient: bool


class Frontier:
    """The tasks of one stage and what may run next.

    Args:
        tasks: in plan order; keys are unique and dependencies name tasks of the plan or keys in ``done``.
        done: keys finished earlier; they need not be among ``tasks``.
        max_retries: how often a task may be lost (``fail(..., transient=True)``) and still be tried again.

    Raises:
        ValueError: duplicate keys, unknown dependencies, a dependency cycle.
    """

    def __init__(
        self, tasks: Iterable[Task], done: Iterable[str] = (), max_retries: int = DEFAULT_MAX_RETRIES
    ):
        self._max_retries = max_retries
        self._tasks: dict[str, Task] = {}
        self._order: dict[str, int] = {}
        for order, task in enumerate(tasks):
            if task.key in self._tasks:
                raise ValueError(f"two tasks have the key {task.key!r}")
            self._tasks[task.key] = task
            self._order[task.key] = order

        finished = set(done)
        self._state: dict[str, State] = {}
        self._tally = dict.fromkeys(State, 0)
        self._unmet: dict[str, int] = {}
        self._dependants: dict[str, list[str]] = {}
        self._lost: dict[str, int] = {}
        self._failures: dict[str, Failure] = {}
        self._heap: list[tuple[int, int, str]] = []
        for key, task in self._tasks.items():
            if key in finished:
                self._enter(key, State.DONE)
                continue
            unmet = 0
            for dependency in dict.fromkeys(task.deps):
                if dependency in finished:
                    continue
                if dependency not in self._tasks:
                    raise ValueError(f"task {key!r} depends on {dependency!r}, which is not in the plan")
                self._dependants.setdefault(dependency, []).append(key)
                unmet += 1
            if unmet:
                self._unmet[key] = unmet
                self._enter(key, State.WAITING)
            else:
                self._make_ready(key)
        self._require_acyclic()

    # -- what the outside does -----------------------------------------------------------------------------

    def take(self, count: int) -> list[Task]:
        """Up to ``count`` ready tasks by priority (lower first), then plan order; from now on they run."""
        taken: list[Task] = []
        while self._heap and len(taken) < count:
            key = heapq.heappop(self._heap)[2]
            # A ready task that a late result completed leaves its place in the heap behind.
            if self._state[key] is State.READY:
                self._move(key, State.RUNNING)
                taken.append(self._tasks[key])
        return taken

    def complete(self, key: str) -> bool:
        """The task's records are safe. True the first time; False for a repetition, or if it failed for good.

        Raises:
            KeyError: no such task.
            ValueError: the task was never handed out.
        """
        if not self._is_open(key, "completed"):
            return False
        self._move(key, State.DONE)
        self._lost.pop(key, None)
        for dependant in self._dependants.pop(key, ()):
            self._unmet[dependant] -= 1
            if self._unmet[dependant] == 0:
                del self._unmet[dependant]
                # Blocked dependants stay blocked: another of their dependencies failed.
                if self._state[dependant] is State.WAITING:
                    self._make_ready(dependant)
        return True

    def fail(self, key: str, error: str, transient: bool) -> bool:
        """The task raised (``transient=False``) or its worker was lost (True). True: it will be tried again.

        A failure of a task that is not running (a second report of one loss) changes nothing and returns
        False.

        Raises:
            KeyError, ValueError: as for ``complete``.
        """
        if not self._is_open(key, "failed") or self._state[key] is not State.RUNNING:
            return False
        losses = self._lost.get(key, 0) + transient
        if transient and losses <= self._max_retries:
            self._lost[key] = losses
            self._make_ready(key)
            return True
        self._lost.pop(key, None)
        self._move(key, State.FAILED)
        self._failures[key] = Failure(error, attempts=losses + (not transient), transient=transient)
        self._block_dependants(key)
        return False

    def requeue(self, key: str) -> None:
        """A running task was handed back without having begun: ready again, and no retry is used up.

        Raises:
            KeyError, ValueError: as for ``complete``.
        """
        if self._is_open(key, "handed back") and self._state[key] is State.RUNNING:
            self._make_ready(key)

    # -- what the outside sees -----------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Nothing is running and nothing will ever become ready."""
        # A waiting task always waits, in the end, for a ready or running one: the graph has no cycles and the
        # dependants of failed tasks are blocked.
        return self._tally[State.READY] == 0 and self._tally[State.RUNNING] == 0

    @property
    def counts(self) -> Counts:
        return Counts(**{state.value: number for state, number in self._tally.items()})

    @property
    def failures(self) -> dict[str, Failure]:
        """The tasks that failed for good, in the order in which they did."""
        return dict(self._failures)

    def state(self, key: str) -> State:
        return self._state[key]

    def losses(self, key: str) -> int:
        """How often the running or ready task was lost so far."""
        return self._lost.get(key, 0)

    # -- transitions ---------------------------------------------------------------------------------------

    def _is_open(self, key: str, verb: str) -> bool:
        """Whether a report about this task may still change something."""
        state = self._state[key]
        if state in (State.WAITING, State.BLOCKED):
            raise ValueError(f"task {key!r} cannot be {verb}: it is {state.value} and was never handed out")
        return state in (State.RUNNING, State.READY)

    def _enter(self, key: str, state: State) -> None:
        self._state[key] = state
        self._tally[state] += 1

    def _move(self, key: str, state: State) -> None:
        self._tally[self._state[key]] -= 1
        self._enter(key, state)

    def _make_ready(self, key: str) -> None:
        if key in self._state:
            self._move(key, State.READY)
        else:
            self._enter(key, State.READY)
        heapq.heappush(self._heap, (self._tasks[key].priority, self._order[key], key))

    def _block_dependants(self, key: str) -> None:
        stack = [key]
        while stack:
            for dependant in self._dependants.get(stack.pop(), ()):
                if self._state[dependant] is State.WAITING:
                    self._move(dependant, State.BLOCKED)
                    stack.append(dependant)

    def _require_acyclic(self) -> None:
        """Kahn's algorithm on a copy of the counters; what never becomes ready lies on or behind a cycle."""
        unmet = dict(self._unmet)
        stack = [key for key, state in self._state.items() if state is State.READY]
        while stack:
            for dependant in self._dependants.get(stack.pop(), ()):
                unmet[dependant] -= 1
                if unmet[dependant] == 0:
                    del unmet[dependant]
                    stack.append(dependant)
        if unmet:
            some = ", ".join(repr(key) for key in list(unmet)[:5])
            raise ValueError(f"{len(unmet)} tasks can never run, their dependencies form a cycle: {some}")
