"""Workers that die: their tasks are tried again, the guilty one alone is charged, nothing hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from acts import Act
from driven import Driven

from pipeline.errors import TasksFailed
from pipeline.plan.tasks import Task
from pipeline.runtime.cluster import LocalSettings, open_executor
from pipeline.runtime.dask_executor import DaskExecutor
from pipeline.runtime.events import Retried


def pids(executor: DaskExecutor) -> list[int]:
    return [int(str(worker["pid"])) for worker in executor.workers()]


def wait_for_workers(executor: DaskExecutor, count: int) -> list[int]:
    deadline = time.monotonic() + 20
    while len(executor.workers()) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return pids(executor)


@pytest.fixture
def act(tmp_path: Path, cluster: DaskExecutor) -> Act:
    work = Act(tmp_path)
    cluster.bind(work)
    wait_for_workers(cluster, 2)
    return work


def test_a_killed_worker_costs_only_what_it_had(cluster: DaskExecutor, act: Act, driven: Driven) -> None:
    tasks = [Task(f"t{n}", "sleep", (0.05,)) for n in range(80)]
    victim = pids(cluster)[0]
    threading.Timer(0.5, os.kill, (victim, signal.SIGKILL)).start()
    summary = driven.run(tasks, cluster)
    assert sorted(driven.values) == sorted(task.key for task in tasks)
    assert summary.retries <= 1
    assert sum(act.runs(task.key) for task in tasks) <= 80 + 5
    assert victim not in wait_for_workers(cluster, 2)


@pytest.mark.faults("kill -9 of every worker, again and again", "all tasks done")
def test_every_worker_killed_repeatedly(cluster: DaskExecutor, act: Act, driven: Driven) -> None:
    tasks = [Task(f"t{n}", "sleep", (0.1,)) for n in range(60)]
    ended = threading.Event()

    def kill_now_and_then() -> None:
        while not ended.wait(0.7):
            for pid in pids(cluster):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_now_and_then)
    threading.Timer(4.0, ended.set).start()
    killer.start()
    try:
        summary = driven.run(tasks, cluster)
    finally:
        ended.set()
        killer.join()
    assert sorted(driven.values) == sorted(task.key for task in tasks)
    assert summary.done == 60


def test_a_task_that_kills_its_worker_once_is_tried_again(
    cluster: DaskExecutor, act: Act, driven: Driven
) -> None:
    summary = driven.run([Task("t", "kills_once", ("marker",))], cluster)
    assert driven.values == {"t": "survived"}
    assert summary.retries == 1
    (retried,) = driven.of(Retried)
    assert "worker running it died" in retried.error


@pytest.mark.faults("a task that always kills its worker", "exit 3 naming it, all others done")
def test_a_task_that_always_kills_its_worker_fails_alone(
    cluster: DaskExecutor, act: Act, driven: Driven
) -> None:
    """The tasks beside it, in the same bundle even, are done and not charged with its deaths."""
    good = [Task(f"t{n}", "square", (n,)) for n in range(100)]
    with pytest.raises(TasksFailed) as caught:
        driven.run([*good[:50], Task("bad", "kills"), *good[50:]], cluster, max_retries=2)
    assert "1 of 101 tasks failed" in caught.value.message
    assert "the worker running it died (killed, or out of memory) (3 attempts)  [bad]" in caught.value.message
    assert sorted(driven.values) == sorted(task.key for task in good)
    # One death may be charged to a neighbour that had just finished and could not say so any more.
    assert 3 <= act.runs("bad") <= 4


@pytest.mark.faults("SIGSTOP of a worker for ever", "replaced, all tasks done")
def test_a_frozen_worker_is_replaced(tmp_path: Path, driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process holds its connection open and says nothing."""
    from pipeline.runtime import crew

    monkeypatch.setattr(crew, "FROZEN_SECONDS", 0.5)
    with open_executor(LocalSettings(workers=2, dashboard=False)) as executor:
        assert isinstance(executor, DaskExecutor)
        executor.bind(Act(tmp_path))
        frozen, _ = wait_for_workers(executor, 2)
        threading.Timer(0.3, os.kill, (frozen, signal.SIGSTOP)).start()
        summary = driven.run([Task(f"t{n}", "sleep", (0.3,)) for n in range(8)], executor)
        assert summary.done == 8
        assert frozen not in wait_for_workers(executor, 2)


@pytest.mark.faults("workers that cannot start", "exit 3 with cause")
def test_workers_that_cannot_start_end_the_run(driven: Driven, tmp_path: Path) -> None:
    with open_executor(
        LocalSettings(workers=2, dashboard=False), {"PYTHONINTMAXSTRDIGITS": "many"}
    ) as executor:
        executor.bind(Act(tmp_path))
        began = time.monotonic()
        with pytest.raises(
            TasksFailed,
            match="no worker is left: worker 0 ended 3 times while starting, last with exit code 1",
        ):
            driven.run([Task("t", "square", (1,))], executor)
        assert time.monotonic() - began < 10
