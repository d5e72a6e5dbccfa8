"""Nodes that fail what others complete are avoided; fast workers get more; workers come and go."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from acts import Act, record
from driven import Driven
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TasksFailed
from pipeline.plan.tasks import Record, Task
from pipeline.runtime import dispatch
from pipeline.runtime.dask_executor import DaskExecutor
from pipeline.runtime.events import Retried, TaskDone
from pipeline.runtime.executor import worker_name
from pipeline.runtime.health import STRIKES, Health


def test_only_what_another_completes_counts() -> None:
    health = Health()
    for n in range(STRIKES):
        health.failed(f"t{n}", "bad")
        assert health.failed_on(f"t{n}") == {"bad"}
        assert not health.avoided, "nobody has shown yet that the task is sound"
        health.completed(f"t{n}", "good")
    assert health.avoided == {"bad"}
    assert not health.failed_on("t0")


def test_a_node_waits_for_the_verdict() -> None:
    health = Health()
    for n in range(STRIKES):
        health.failed(f"t{n}", "bad")
    assert health.avoided == {"bad"}
    for n in range(STRIKES):
        health.failed(f"t{n}", "other")
    assert not health.avoided, "the tasks are to blame"


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.booleans())))
def test_a_node_that_never_fails_is_never_avoided(events: list[tuple[int, str, bool]]) -> None:
    health = Health()
    for key, node, fails in events:
        if fails and node != "c":
            health.failed(str(key), node)
        else:
            health.completed(str(key), node)
    assert "c" not in health.avoided


@dataclass(frozen=True)
class Uneven:
    """One worker, the first to take its place, is slow or broken."""

    directory: Path
    seconds: float
    slowness: float = 1.0
    broken: bool = False

    def __call__(self, task: Task) -> list[Record]:
        first = self.directory / "first"
        try:
            with first.open("x") as file:
                file.write(worker_name())
        except FileExistsError:
            pass
        chosen = first.read_text() == worker_name()
        if chosen and self.broken:
            raise OSError("its memory is bad")
        time.sleep(self.seconds * (self.slowness if chosen else 1.0))
        return [record(task, worker_name())]


@pytest.fixture
def as_nodes(cluster: DaskExecutor, monkeypatch: pytest.MonkeyPatch) -> DaskExecutor:
    """Two workers that count as two nodes."""
    monkeypatch.setattr(dispatch, "node_of", lambda address: address)
    monkeypatch.setattr(cluster._dispatcher, "_health", Health())
    deadline = time.monotonic() + 20
    while len(cluster.workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    return cluster


def test_a_broken_node_is_avoided(as_nodes: DaskExecutor, tmp_path: Path, driven: Driven) -> None:
    as_nodes.bind(Uneven(tmp_path, 0.1, broken=True))
    summary = driven.run([Task(f"t{n}", "uneven") for n in range(20)], as_nodes)
    assert summary.done == 20
    assert STRIKES <= summary.retries <= STRIKES + 6, "those that it had taken when it was judged"
    assert all("its memory is bad" in event.error for event in driven.of(Retried))
    assert len({event.worker for event in driven.of(TaskDone)}) == 1


def test_a_broken_task_fails_on_two_nodes(as_nodes: DaskExecutor, tmp_path: Path, driven: Driven) -> None:
    act = Act(tmp_path)
    as_nodes.bind(act)
    with pytest.raises(TasksFailed, match="1 of 9 tasks failed"):
        driven.run(
            [Task("bad", "breaks", ("no",)), *(Task(f"t{n}", "square", (n,)) for n in range(8))], as_nodes
        )
    assert act.runs("bad") == 2


def test_work_goes_where_it_is_done(cluster: DaskExecutor, tmp_path: Path, driven: Driven) -> None:
    """A worker three times as slow gets a third of the other's tasks; together they take what both speeds add up to."""
    cluster.bind(Uneven(tmp_path, 0.05, slowness=3.0))
    began = time.monotonic()
    driven.run([Task(f"t{n}", "uneven") for n in range(60)], cluster)
    wall = time.monotonic() - began
    few, many = sorted(Counter(event.worker for event in driven.of(TaskDone)).values())
    assert 2.2 <= many / few <= 4.0
    assert wall < 1.35 * 60 * 0.05 * 3 / 4 + 1
