"""Tasks that are made when they are handed out: what happens to them is what happens in the full state machine."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.gram import Cut, each_gram_task, gram_tasks
from pipeline.plan.tasks import Task, Tasks
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.frontier import Frontier
from pipeline.runtime.stream import Stream

COUNT = 6

STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "complete", "lose", "break", "requeue"]), st.integers(0, COUNT - 1)),
    max_size=60,
)


def some() -> Iterator[Task]:
    return (Task(f"t{n}", "square") for n in range(COUNT))


@given(STEPS)
def test_it_does_what_the_frontier_does(steps: list[tuple[str, int]]) -> None:
    stream, frontier = Stream(Tasks(some), max_retries=2), Frontier(some(), max_retries=2)
    taken: set[str] = set()
    for what, number in steps:
        key = f"t{number}"
        if what == "take":
            found = stream.take(number)
            assert found == frontier.take(number)
            taken |= {task.key for task in found}
        elif key not in taken:
            continue
        elif what == "complete":
            assert stream.complete(key) == frontier.complete(key)
        elif what == "requeue":
            stream.requeue(key)
            frontier.requeue(key)
        else:
            transient = what == "lose"
            assert stream.fail(key, "why", transient) == frontier.fail(key, "why", transient)
        assert stream.counts == frontier.counts
        assert stream.finished == frontier.finished
        assert stream.failures == frontier.failures
        for known in taken:
            assert stream.state(known) is frontier.state(known)
            assert stream.losses(known) == frontier.losses(known)


def test_a_gram_matrix_is_the_same_either_way() -> None:
    grid, done = TileGrid(40, 3), {("gram/ntk", (0, 1))}
    tasks = Tasks(lambda: each_gram_task(grid, ("ntk", "nngp"), done, Cut(2)))
    listed = gram_tasks(grid, ("ntk", "nngp"), done, Cut(2))
    assert tuple(tasks) == tuple(tasks) == listed
    assert (len(tasks), tasks.chunks) == (len(listed), sum(len(task.writes) for task in listed))


def test_a_long_plan_takes_no_memory() -> None:
    grid = TileGrid(141, 1)  # 10,011 tiles
    tracemalloc.start()
    try:
        stream = Stream(Tasks(lambda: each_gram_task(grid, ("ntk",), ())))
        for _ in itertools.count():
            for task in (found := stream.take(8)):
                stream.complete(task.key)
            if not found:
                break
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.counts.done == 10_011
    assert most < 500_000, "all of its tasks take 7 MB"
