"""The executor without a scheduler: tasks run one after the other in the calling thread."""

from __future__ import annotations

from collections import deque

from pipeline.plan.tasks import Task
from pipeline.runtime.executor import Outcome, Work, run_task, worker_name


class SerialExecutor:
    """Runs one submitted task per ``wait``, in the thread that waits.

    A task that runs cannot be interrupted: a stop takes effect when it ends.
    """

    capacity = 1

    def __init__(self) -> None:
        self._work: Work | None = None
        self._queue: deque[Task] = deque()
        self._cancelled = False

    def bind(self, work: Work) -> None:
        self._work = work
        self._queue.clear()
        self._cancelled = False

    def submit(self, task: Task) -> None:
        if self._work is None:
            raise RuntimeError("bind(work) comes before submit()")
        self._queue.append(task)

    def wait(self, timeout: float) -> list[Outcome]:
        if not self._queue or self._work is None:
            return []
        task = self._queue.popleft()
        if self._cancelled:
            return [Outcome(task.key, error="it was not begun", transient=True, charged=False)]
        return [run_task(self._work, task)]

    def wake(self) -> None:
        """Nothing to do: ``wait`` never sleeps."""

    def cancel(self) -> None:
        self._cancelled = True

    def workers(self) -> list[dict[str, object]]:
        host, _, pid = worker_name().rpartition(":")
        return [{"name": "serial", "host": host, "pid": int(pid), "address": "", "threads": 1}]

    def close(self) -> None:
        self._queue.clear()
