"""Tasks go to the worker that they prefer, unless it is gone or another has nothing to do."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from acts import Act, Memory
from driven import Driven
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan.tasks import Task
from pipeline.runtime.cluster import LocalSettings, open_executor
from pipeline.runtime.dask_executor import DaskExecutor
from pipeline.runtime.executor import Executor
from pipeline.runtime.preferred import Preferred

WORKERS = st.sampled_from("abc")


@given(st.lists(WORKERS, max_size=30), st.integers(1, 4), st.integers(1, 3))
def test_nobody_gets_more_than_its_own_few_and_everything_is_given_once(wanted, size, ahead):
    waiting: Preferred[int] = Preferred(ahead)
    for number, worker in enumerate(wanted):
        waiting.add(worker, number)
    under_way, given_out = {"a": 0, "b": ahead - 1}, []
    while found := waiting.next(under_way, size):
        worker, items = found
        under_way[worker] += 1
        assert under_way[worker] <= ahead and 0 < len(items) <= size
        assert all(wanted[item] == worker for item in items)
        given_out += items
    assert waiting.next(dict.fromkeys("ab", ahead), size) is None
    orphans = waiting.orphans("ab")
    assert [wanted[item] for item in orphans] == ["c"] * wanted.count("c")
    while items := waiting.relieve(size):
        assert len(items) <= size
        given_out += items
    assert sorted(given_out + orphans) == list(range(len(wanted)))
    assert not waiting


def test_who_has_nothing_to_do_takes_the_last_ones_of_the_busiest():
    waiting: Preferred[int] = Preferred(1)
    for item, worker in enumerate("abbbbb"):
        waiting.add(worker, item)
    assert waiting.relieve(2) == [5, 4]
    assert waiting.remove(lambda item: item > 2) == [3]
    assert waiting.next({"a": 0, "b": 1}, 2) == ("a", [0])


@pytest.fixture
def workers(cluster: DaskExecutor) -> list[str]:
    """Names of both workers, which are there."""
    end = time.monotonic() + 30
    while len(found := cluster.workers()) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    return [str(worker["label"]) for worker in found]


def test_tasks_go_where_they_like(
    cluster: DaskExecutor, workers: list[str], tmp_path: Path, driven: Driven
) -> None:
    cluster.bind(Act(tmp_path))
    homes = {f"t{n}": workers[n % 2] for n in range(24)}
    driven.run([Task(key, "sleep", (0.02,), prefers=home) for key, home in homes.items()], cluster)
    same = sum(record.worker == homes[record.task] for record in driven.records)
    # Should the machine hold one of them up, the other may help it.
    assert len(driven.records) == 24 and same >= 20


def test_a_worker_with_nothing_to_do_takes_over(
    cluster: DaskExecutor, workers: list[str], tmp_path: Path, driven: Driven
) -> None:
    cluster.bind(Act(tmp_path))
    one, other = workers
    driven.run([Task(f"t{n}", "sleep", (0.1,), prefers=one) for n in range(12)], cluster)
    done = Counter(record.worker for record in driven.records)
    assert done.keys() == {one, other} and done[one] >= done[other]


def test_a_preference_that_cannot_be_met_is_none(executor: Executor, tmp_path: Path, driven: Driven) -> None:
    executor.bind(Act(tmp_path))
    driven.run([Task(f"t{n}", "square", (n,), prefers="elsewhere:1") for n in range(9)], executor)
    assert len(driven.values) == 9


def test_tasks_outlive_the_worker_that_they_prefer(tmp_path: Path) -> None:
    with open_executor(LocalSettings(workers=2, dashboard=False)) as executor:
        executor.bind(Act(tmp_path))
        first, driven = Driven(), Driven()
        first.run([Task(f"t{n}", "sleep", (0.02,)) for n in range(8)], executor)
        home = first.records[0].worker
        tasks = [Task("k", "kills_once", ("marker",), prefers=home)]
        tasks += [Task(f"t{n}", "sleep", (0.02,), prefers=home) for n in range(12)]
        driven.run(tasks, executor)
        assert len(driven.values) == 13
        assert home not in {record.worker for record in driven.records if record.task == "k"}


def test_work_that_is_bound_again_finds_what_it_left(cluster: DaskExecutor) -> None:
    def seen(name: str) -> int:
        cluster.bind(Memory(name))
        driven = Driven()
        driven.run([Task(f"t{n}", "remember", (n,)) for n in range(20)], cluster)
        return max(int(str(value)) for value in driven.values.values())

    first = seen("one")
    assert seen("one") > first
    assert seen("two") <= 20
    assert seen("one") <= 20, "other work was bound between"


@pytest.mark.parametrize("stopped", [False, True])
def test_preferring_tasks_do_not_fill_the_places_of_others(
    cluster: DaskExecutor, workers: list[str], tmp_path: Path, stopped: bool
) -> None:
    """However many wait for one worker, all are handed over at once, and all come back."""
    cluster.bind(Act(tmp_path))
    tasks = [Task(f"t{n}", "sleep", (0.01,), prefers=workers[0]) for n in range(40)]
    for task in tasks:
        cluster.submit(task)
    assert cluster.capacity > 40
    if stopped:
        cluster.cancel()
    ended: list[str] = []
    while len(ended) < 40:
        outcomes = cluster.wait(10)
        assert outcomes
        ended += [outcome.key for outcome in outcomes]
    assert sorted(ended) == sorted(task.key for task in tasks)
    assert cluster.capacity < 40 * 32
