"""The executor without a scheduler: tasks run one after the other, in this process."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from pipeline.plan.tasks import Task
from pipeline.runtime.executor import Outcome, Work, run_task, worker_name

_TASK = "ntk-task"


class SerialExecutor:
    """Runs one task at a time in a thread of its own, so that the thread that waits can give a stop its grace time and
    then leave: what a task would still have stored is computed again by the next run."""

    capacity = 1

    def __init__(self) -> None:
        self._work: Work | None = None
        self._task: str | None = None
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def bind(self, work: Work) -> None:
        self._work = work
        # What an abandoned task of the last stage may still deliver goes nowhere.
        self._outcomes = queue.SimpleQueue()

    def log_to(self, folder: Path) -> None:
        """There is no other process than the caller's, which tells what it does itself."""

    def submit(self, task: Task) -> None:
        if self._work is None:
            raise RuntimeError("bind(work) comes before submit()")
        self._task = task.key
        arguments = (self._work, task, self._outcomes)
        threading.Thread(target=_run, args=arguments, name=_TASK, daemon=True).start()

    def wait(self, timeout: float) -> list[Outcome]:
        try:
            outcome = self._outcomes.get(timeout=max(timeout, 0))
        except queue.Empty:
            return []
        if outcome is None:
            return []
        self._task = None
        return [outcome]

    def wake(self) -> None:
        self._outcomes.put(None)

    def cancel(self) -> None:
        """Nothing waits to begin: a submitted task runs at once."""

    def workers(self) -> list[dict[str, object]]:
        host, _, pid = worker_name().rpartition(":")
        return [{
            "name": "serial", "label": worker_name(), "host": host, "pid": int(pid), "address": "", "threads": 1,
            "task": self._task, "silent": 0.0,
        }]  # fmt: skip

    def close(self) -> None:
        self._work = None


def is_at_work() -> bool:
    """Whether a task that was given up still runs in this process."""
    return any(thread.name == _TASK for thread in threading.enumerate())


def _run(work: Work, task: Task, outcomes: queue.SimpleQueue[Outcome | None]) -> None:
    outcomes.put(run_task(work, task))
