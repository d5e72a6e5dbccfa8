"""Laws that every executor obeys, held by one suite."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from acts import Act, Unloadable
from driven import Driven

from pipeline.errors import GateError, Interrupted, PipelineError, Stopped, TasksFailed
from pipeline.plan.tasks import Task
from pipeline.runtime.events import Finished, Started, TaskDone, TaskFailed, WorkersChanged
from pipeline.runtime.executor import Executor, Outcome
from pipeline.runtime.stop import StopFlag


@pytest.fixture
def act(tmp_path: Path, executor: Executor) -> Act:
    work = Act(tmp_path)
    executor.bind(work)
    return work


def test_every_task_delivers_its_records(executor: Executor, act: Act, driven: Driven) -> None:
    tasks = [Task(f"t{n}", "square", (n,)) for n in range(60)]
    summary = driven.run(tasks, executor)
    assert driven.values == {f"t{n}": n * n for n in range(60)}
    assert len(driven.records) == 60
    assert (summary.done, summary.failed, summary.retries) == (60, 0, 0)
    assert driven.of(Started) == [Started(60, 0)]
    assert driven.of(Finished) == [Finished(summary)]
    assert [event.done for event in driven.of(TaskDone)] == list(range(1, 61))
    assert driven.of(WorkersChanged)
    pids = {str(worker["pid"]) for worker in executor.workers()}
    assert {record.worker.rpartition(":")[2] for record in driven.records} <= pids


def test_dependencies_come_first(executor: Executor, act: Act, driven: Driven) -> None:
    """A task begins only once the records of those it depends on were handed over."""
    tasks = [
        Task(f"t{n}", "square", (n,), deps=tuple(f"t{k}" for k in (n - 1, n - 3) if k >= 0))
        for n in range(12)
    ]
    driven.run(tasks, executor)
    assert [record.task for record in driven.records] == [f"t{n}" for n in range(12)]


def test_what_is_done_is_not_done_again(executor: Executor, act: Act, driven: Driven) -> None:
    tasks = [Task(f"t{n}", "square", (n,), deps=("t0",) if n else ()) for n in range(5)]
    summary = driven.run(tasks, executor, done=["t0", "t3"])
    assert summary.done == 3
    assert sorted(driven.values) == ["t1", "t2", "t4"]
    assert act.runs("t0") == act.runs("t3") == 0


def test_nothing_to_do(executor: Executor, act: Act, driven: Driven) -> None:
    assert driven.run([], executor).done == 0


def test_an_exception_is_not_retried_and_keeps_its_traceback(
    executor: Executor, act: Act, driven: Driven
) -> None:
    good = [Task(f"t{n}", "square", (n,)) for n in range(10)]
    with pytest.raises(TasksFailed, match=r"1 of 12 tasks failed\n  1 × ValueError: no such tile") as caught:
        driven.run(
            [*good, Task("bad", "breaks", ("no such tile",)), Task("after", "square", (1,), ("bad",))],
            executor,
        )
    assert "1 tasks wait for them in vain" in caught.value.message
    assert caught.value.exit_code == 3
    (note,) = caught.value.__notes__
    assert "acts.py" in note
    assert "ValueError: no such tile" in note
    assert act.runs("bad") == 1
    assert sorted(driven.values) == sorted(task.key for task in good)
    (failed,) = driven.of(TaskFailed)
    assert failed.key == "bad"


def test_many_failures_end_early(executor: Executor, act: Act, driven: Driven) -> None:
    tasks = [Task(f"t{n}", "breaks", ("all alike",)) for n in range(500)]
    with pytest.raises(TasksFailed, match="× ValueError: all alike"):
        driven.run(tasks, executor)
    assert sum(act.runs(task.key) for task in tasks) <= 3 + executor.capacity


def test_errors_for_a_person_arrive_as_they_were(executor: Executor, act: Act, driven: Driven) -> None:
    with pytest.raises(GateError) as caught:
        driven.run([Task("t", "gate")], executor)
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (
        "the residual is 3",
        "a larger ridge",
        1,
    )


def test_an_error_that_cannot_travel_arrives_as_its_base(
    executor: Executor, act: Act, driven: Driven
) -> None:
    with pytest.raises(PipelineError) as caught:
        driven.run([Task("t", "odd")], executor)
    assert (caught.value.message, caught.value.hint) == ("1 is not 2", "make them equal")


def test_exit_in_a_task_is_a_failure(executor: Executor, act: Act, driven: Driven) -> None:
    with pytest.raises(TasksFailed, match="SystemExit: 4"):
        driven.run([Task("t", "exits")], executor)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Stopped), (signal.SIGINT, Interrupted)])
def test_a_signal_stops_cleanly(
    executor: Executor, act: Act, driven: Driven, number: signal.Signals, kind: type[Stopped]
) -> None:
    """No new task begins; whatever was begun is recorded."""
    tasks = [Task(f"t{n}", "sleep", (0.1,)) for n in range(200)]
    began = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    with (
        StopFlag() as stop,
        pytest.raises(kind, match=rf"stopped by {number.name}: \d+ of 200 tasks are done") as caught,
    ):
        driven.run(tasks, executor, stop=stop)
    assert type(caught.value) is kind
    assert time.monotonic() - began < 3
    assert 2 <= len(driven.records) < 60
    assert {task.key for task in tasks if act.runs(task.key)} == set(driven.values)


def test_a_second_signal_waits_for_nothing(cluster: Executor, tmp_path: Path, driven: Driven) -> None:
    cluster.bind(Act(tmp_path))
    began = time.monotonic()
    with StopFlag() as stop, pytest.raises(Stopped):
        threading.Timer(0.3, stop.set).start()
        threading.Timer(0.5, stop.set).start()
        driven.run([Task(f"t{n}", "sleep", (2.0,)) for n in range(2)], cluster, stop=stop)
    assert time.monotonic() - began < 1.5


def test_the_grace_time_ends(cluster: Executor, tmp_path: Path, driven: Driven) -> None:
    cluster.bind(Act(tmp_path))
    began = time.monotonic()
    with StopFlag() as stop, pytest.raises(Stopped, match="0 of 2 tasks"):
        threading.Timer(0.3, stop.set).start()
        driven.run([Task(f"t{n}", "sleep", (3.0,)) for n in range(2)], cluster, stop=stop, grace=0.5)
    assert time.monotonic() - began < 1.5


def test_a_stop_before_the_start(executor: Executor, act: Act, driven: Driven) -> None:
    stop = StopFlag()
    stop.set()
    with pytest.raises(Stopped, match="0 of 1 tasks"):
        driven.run([Task("t", "square", (1,))], executor, stop=stop)
    assert act.runs("t") == 0


def test_the_next_stage_is_not_disturbed_by_the_last(
    executor: Executor, tmp_path: Path, driven: Driven
) -> None:
    """A stage is given up with tasks in flight; the executor is bound to another and serves that one alone."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    first, second = Act(tmp_path / "first"), Act(tmp_path / "second")
    executor.bind(first)
    for number in range(3):
        executor.submit(Task(f"old{number}", "sleep", (0.05,)))
    executor.cancel()
    executor.bind(second)
    driven.run([Task(f"t{n}", "square", (n,)) for n in range(20)], executor)
    assert sorted(driven.values) == sorted(f"t{n}" for n in range(20))


def test_one_outcome_for_each_submission(executor: Executor, act: Act) -> None:
    for _ in range(2):
        executor.submit(Task("same", "square", (3,)))
    outcomes: list[Outcome] = []
    deadline = time.monotonic() + 10
    while len(outcomes) < 2 and time.monotonic() < deadline:
        outcomes += executor.wait(0.5)
    assert [outcome.key for outcome in outcomes] == ["same", "same"]
    assert executor.wait(0.05) == []


def test_work_that_cannot_be_loaded_is_an_error(cluster: Executor, driven: Driven) -> None:
    cluster.bind(Unloadable())
    with pytest.raises(TasksFailed, match="the work cannot be loaded: ValueError"):
        driven.run([Task("t", "any")], cluster)


def test_work_comes_before_tasks() -> None:
    from pipeline.runtime.serial import SerialExecutor

    with pytest.raises(RuntimeError, match="bind"):
        SerialExecutor().submit(Task("t", "any"))
