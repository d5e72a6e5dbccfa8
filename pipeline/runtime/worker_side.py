"""What runs inside a Dask worker for each task."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from functools import partial

from pipeline.plan.tasks import Task
from pipeline.runtime import task_log
from pipeline.runtime.executor import Outcome, Work, compute_task, describe, worker_name

# The work of the stage this process is in, unpickled once: (topic, the pickle) and the work. Bound again, the same
# work finds what it left here.
_bound: tuple[tuple[str, bytes], Work] | None = None
# Tasks of this generation and older ones are not begun any more.
_refused = 0
# A worker has two threads; the one whose turn it is computes, the other stores what it computed before.
_turn = threading.Lock()
# Outcomes wait this long for others to travel with.
_REPORT_SECONDS = 0.02
# Much longer than a worker takes to send what it has to say (2 ms), also on a machine that is busy.
_SUSPECT_SECONDS = 0.1


def refuse(generation: int) -> None:
    """The coordinator wants to stop: tasks that wait here for their turn are not begun."""
    global _refused
    _refused = max(_refused, generation)


def run_and_report(data: bytes, *, blob: bytes, topic: str, generation: int, logs: str | None) -> None:
    """Runs a bundle of tasks in order and sends events (bundle, pickled (begun, [(number, outcome), …], address)).

    Args:
        data: pickled list of (number, task, suspect); the first number is the bundle's. Suspect: a worker
            died with this task on it. That it begins is reported, and given time to arrive, so that nothing
            else is taken for the cause should it be what kills workers.
        blob: the pickled work.
        topic: of the events.
        generation: counts the stages of a run.
        logs: folder for the log of this process, if there is to be one.
    """
    from distributed import get_worker

    worker = get_worker()
    bundle: list[tuple[int, Task, bool]] = pickle.loads(data)
    outcomes: list[tuple[int, Outcome]] = []
    reported = time.monotonic()

    def report(begun: int | None = None) -> None:
        # Events reach the scheduler before the message that the bundle is finished: one road, in order.
        nonlocal reported
        worker.log_event(topic, (bundle[0][0], pickle.dumps((begun, outcomes, worker.address))))
        outcomes.clear()
        reported = time.monotonic()

    for number, task, suspect in bundle:
        announce = partial(report, number) if suspect else None
        outcomes.append((number, _run(task, blob, (topic, generation), announce)))
        if logs is not None:
            task_log.note(logs, task, outcomes[-1][1])
        if time.monotonic() - reported > _REPORT_SECONDS:
            report()
    if outcomes:
        report()


def _run(task: Task, blob: bytes, stage: tuple[str, int], announce: Callable[[], None] | None) -> Outcome:
    with _turn:
        if stage[1] <= _refused:
            return Outcome(task.key, error="it was not begun", transient=True, charged=False)
        if announce is not None:
            announce()
            time.sleep(_SUSPECT_SECONDS)
        try:
            work = _work(blob, stage[0])
        except Exception as error:
            return Outcome(
                task.key, error=f"the work cannot be loaded: {describe(error)}", worker=worker_name()
            )
        store = compute_task(work, task)
    return store()


def _work(blob: bytes, topic: str) -> Work:
    global _bound
    if _bound is None or _bound[0] != (topic, blob):
        _bound = None  # what the last one kept goes first
        _bound = ((topic, blob), pickle.loads(blob))
    return _bound[1]
