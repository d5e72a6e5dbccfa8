"""The drive's laws under any order of events, with an executor that does whatever a script says."""

from __future__ import annotations

import random

import pytest
from driven import Driven
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TasksFailed
from pipeline.plan.tasks import Record, Task
from pipeline.runtime.events import Retried, TaskDone
from pipeline.runtime.executor import Outcome, Work
from pipeline.runtime.serial import SerialExecutor


class Unruly:
    """Ends tasks in any order, loses some, hands some back, reports some twice; watches the window."""

    def __init__(
        self, seed: int, capacity: int, loss: float = 0.0, handed_back: float = 0.0, twice: float = 0.0
    ):
        self._random = random.Random(seed)
        self.capacity = capacity
        self._loss, self._handed_back, self._twice = loss, handed_back, twice
        self._flying: list[Task] = []
        self.most = 0
        self.seen: list[str] = []

    def bind(self, work: Work) -> None:
        """Its tasks do nothing."""

    def submit(self, task: Task) -> None:
        self._flying.append(task)
        self.most = max(self.most, len(self._flying))

    def wait(self, timeout: float) -> list[Outcome]:
        self._random.shuffle(self._flying)
        count = self._random.randint(0, len(self._flying))
        ended, self._flying = self._flying[:count], self._flying[count:]
        outcomes = [self._end(task) for task in ended]
        for key in self.seen:
            if self._random.random() < self._twice:
                outcomes.append(self._success(key))
        return outcomes

    def _end(self, task: Task) -> Outcome:
        chance = self._random.random()
        if chance < self._loss:
            return Outcome(task.key, error="the worker died", transient=True)
        if chance < self._loss + self._handed_back:
            return Outcome(task.key, error="it was not begun", transient=True, charged=False)
        self.seen.append(task.key)
        return self._success(task.key)

    def _success(self, key: str) -> Outcome:
        return Outcome(key, [Record("a", (0,), "d", (1,), "float64", 0.5, 8, "h:1", 0.0, key)], seconds=0.5)

    def wake(self) -> None:
        """It never sleeps."""

    def cancel(self) -> None:
        self._handed_back = 1.0

    def workers(self) -> list[dict[str, object]]:
        return []

    def close(self) -> None:
        """It holds nothing."""


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(0, 60),
    capacity=st.integers(1, 12),
    loss=st.floats(0, 0.3),
    handed_back=st.floats(0, 0.3),
    twice=st.sampled_from([0.0, 0.1]),
)
def test_everything_is_done_once_whatever_happens(
    seed: int, count: int, capacity: int, loss: float, handed_back: float, twice: float
) -> None:
    """All tasks are recorded before they count, count once, and never more than the window is in flight."""
    executor = Unruly(seed, capacity, loss, handed_back, twice)
    source = random.Random(seed)
    tasks = [
        Task(f"t{n}", "k", deps=tuple({f"t{source.randrange(n)}" for _ in range(2)}) if n else ())
        for n in range(count)
    ]
    driven = Driven()
    summary = driven.run(tasks, executor, max_retries=1000)
    assert {record.task for record in driven.records} == {task.key for task in tasks}
    assert [event.done for event in driven.of(TaskDone)] == list(range(1, count + 1))
    assert executor.most <= capacity
    assert summary.done == count
    assert summary.busy_seconds == pytest.approx(count * 0.5)
    assert summary.retries == len(driven.of(Retried))
    place = {event.key: event.done for event in driven.of(TaskDone)}
    assert all(place[dep] < place[task.key] for task in tasks for dep in task.deps)


def test_a_task_that_is_always_lost_fails_in_the_end() -> None:
    driven = Driven()
    with pytest.raises(TasksFailed, match=r"1 × the worker died \(4 attempts\)"):
        driven.run([Task("t", "k")], Unruly(0, 1, loss=1.0), max_retries=3)
    assert [event.losses for event in driven.of(Retried)] == [1, 2, 3]


def test_a_task_that_is_handed_back_uses_up_no_retry() -> None:
    executor = Unruly(1, 4, handed_back=0.9)
    assert Driven().run([Task(f"t{n}", "k") for n in range(8)], executor, max_retries=0).done == 8


def test_the_table_of_failures_counts_each_message() -> None:
    class Work:
        def __call__(self, task: Task) -> list[Record]:
            raise ValueError("odd" if task.args[0] % 2 else "even")

    executor = SerialExecutor()
    executor.bind(Work())
    with pytest.raises(TasksFailed) as caught:
        Driven().run([Task(f"t{n}", "k", (n,)) for n in range(5)], executor, max_failures=5)
    assert caught.value.message.splitlines() == [
        "5 of 5 tasks failed",
        "  3 × ValueError: even  [t0, …]",
        "  2 × ValueError: odd  [t1, …]",
    ]
    assert len(caught.value.__notes__) == 2


def test_a_task_without_its_record_is_not_done() -> None:
    """Recording fails: the error goes up as it is and nothing was counted."""
    driven = Driven()
    executor = SerialExecutor()
    executor.bind(lambda task: [Record("a", (0,), "d", (1,), "float64", 0.0, 8, "h:1", 0.0, task.key)])

    def disk_full(records: list[Record]) -> None:
        raise OSError(28, "No space left on device")

    from pipeline.runtime.drive import drive

    with pytest.raises(OSError, match="No space left"):
        drive([Task("t", "k")], executor, on_records=disk_full, listener=driven.events.append)
    assert driven.events[-1].summary.done == 0  # type: ignore[union-attr]
