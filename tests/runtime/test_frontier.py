"""The frontier's laws: order, exactly-once completion, bounded retries, blocked dependants."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.plan.tasks import Task
from pipeline.runtime.frontier import Frontier, State

MAX_RETRIES = 2


@st.composite
def plans(draw: st.DrawFn) -> list[Task]:
    """Acyclic plans: a task depends on earlier ones only."""
    count = draw(st.integers(1, 12))
    tasks = []
    for number in range(count):
        earlier = [f"t{k}" for k in range(number)]
        deps = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        tasks.append(Task(f"t{number}", "any", deps=tuple(deps), priority=draw(st.integers(-1, 1))))
    return draw(st.permutations(tasks))


class FrontierMachine(RuleBasedStateMachine):
    """Compares the frontier with a model that recomputes everything from the history of each task."""

    @initialize(tasks=plans(), data=st.data())
    def begin(self, tasks: list[Task], data: st.DataObject) -> None:
        self.tasks = {task.key: task for task in tasks}
        self.order = {task.key: place for place, task in enumerate(tasks)}
        keys = sorted(self.tasks)
        earlier = data.draw(st.lists(st.sampled_from(keys), max_size=2))
        self.frontier = Frontier(tasks, earlier, MAX_RETRIES)
        self.done = set(earlier)
        self.failed: set[str] = set()
        self.running: set[str] = set()
        self.losses = dict.fromkeys(keys, 0)
        self.handed_out = set(earlier)

    def is_blocked(self, key: str) -> bool:
        open_deps = (dep for dep in self.tasks[key].deps if dep not in self.done)
        return any(dep in self.failed or self.is_blocked(dep) for dep in open_deps)

    def ready(self) -> list[str]:
        open_keys = set(self.tasks) - self.done - self.failed - self.running
        ready = [key for key in open_keys if all(dep in self.done for dep in self.tasks[key].deps)]
        return sorted(ready, key=lambda key: (self.tasks[key].priority, self.order[key]))

    @rule(count=st.integers(0, 4))
    def take(self, count: int) -> None:
        expected = self.ready()[:count]
        assert [task.key for task in self.frontier.take(count)] == expected
        self.running.update(expected)
        self.handed_out.update(expected)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """Also of tasks that are done, failed, or ready again: results may come twice or late."""
        key = data.draw(st.sampled_from(sorted(self.handed_out)))
        first = key not in self.done and key not in self.failed
        assert self.frontier.complete(key) == first
        if first:
            self.done.add(key)
            self.running.discard(key)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data(), transient=st.booleans())
    def fail(self, data: st.DataObject, transient: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.handed_out)))
        again = self.frontier.fail(key, "why", transient)
        if key not in self.running:
            assert not again
            return
        self.running.discard(key)
        self.losses[key] += transient
        assert again == (transient and self.losses[key] <= MAX_RETRIES)
        if not again:
            self.failed.add(key)
            assert self.frontier.failures[key].attempts == self.losses[key] + (not transient)

    @precondition(lambda self: self.handed_out)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.handed_out)))
        self.frontier.requeue(key)
        self.running.discard(key)

    @invariant()
    def states_agree(self) -> None:
        if not hasattr(self, "frontier"):
            return
        ready = set(self.ready())
        for key in self.tasks:
            if key in self.done:
                expected = State.DONE
            elif key in self.failed:
                expected = State.FAILED
            elif key in self.running:
                expected = State.RUNNING
            elif key in ready:
                expected = State.READY
            else:
                expected = State.BLOCKED if self.is_blocked(key) else State.WAITING
            assert self.frontier.state(key) is expected, key
        counts = self.frontier.counts
        for state in State:
            number = sum(self.frontier.state(key) is state for key in self.tasks)
            assert getattr(counts, state.value) == number
        assert self.frontier.finished == (not self.running and not ready)
        assert set(self.frontier.failures) == self.failed


FrontierMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFrontier = FrontierMachine.TestCase


@given(plans())
def test_every_task_runs_once_and_after_its_dependencies(tasks: list[Task]) -> None:
    frontier = Frontier(tasks)
    done: list[str] = []
    while not frontier.finished:
        for task in frontier.take(2):
            assert set(task.deps) <= set(done)
            frontier.complete(task.key)
            done.append(task.key)
    assert sorted(done) == sorted(task.key for task in tasks)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([Task("a", "k"), Task("a", "k")], "two tasks have the key 'a'"),
        ([Task("a", "k", deps=("b",))], "'a' depends on 'b', which is not in the plan"),
        ([Task("a", "k", deps=("b",)), Task("b", "k", deps=("a",))], "cycle: 'a', 'b'"),
        ([Task("a", "k", deps=("a",))], "1 tasks can never run"),
    ],
)
def test_a_plan_that_is_none_is_refused(tasks: list[Task], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Frontier(tasks)


def test_only_tasks_that_were_handed_out_are_reported_on() -> None:
    frontier = Frontier([Task("a", "k"), Task("b", "k", deps=("a",))])
    with pytest.raises(ValueError, match="'b' cannot be completed: it is waiting"):
        frontier.complete("b")
    with pytest.raises(KeyError):
        frontier.complete("c")


def test_a_hundred_thousand_tasks() -> None:
    """50,000 operations a second and memory that does not grow while the tasks run."""
    count = 100_000
    tasks = [
        Task(f"t{n}", "k", deps=(f"t{n - 1000}",) if n >= 1000 else (), priority=n % 7) for n in range(count)
    ]
    began = time.perf_counter()
    frontier = Frontier(tasks)
    operations = 0
    while not frontier.finished:
        batch = frontier.take(64)
        for task in batch:
            frontier.complete(task.key)
        operations += 2 * len(batch)
    seconds = time.perf_counter() - began
    assert operations == 2 * count
    assert operations / seconds > 50_000


def test_running_needs_no_memory() -> None:
    """What the frontier's own lines allocate while it runs is nothing beside the tasks."""
    frontier = Frontier(Task(f"t{n}", "k") for n in range(20_000))
    held = []
    tracemalloc.start()
    try:
        while not frontier.finished:
            for task in frontier.take(1000):
                frontier.complete(task.key)
            here = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.Filter(True, "*/runtime/frontier.py")]
            )
            held.append(sum(trace.size for trace in here.traces))
    finally:
        tracemalloc.stop()
    assert max(held) < 100_000
