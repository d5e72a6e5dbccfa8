"""What an executor is, and the one way in which all of them run a task.

An executor is opened once for a whole run and bound to the work of each stage in turn: ``work(task)`` stores
what it computes and returns records, or, when its arithmetic is done, a function that stores and returns records: a
worker computes one task at a time, and what the last one left to store is stored meanwhile. Nothing that a task
raises crosses a process boundary as a live exception: ``run_task`` turns it into an ``Outcome``, so that a message,
a hint and a traceback arrive whole whichever executor ran it.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipelineError
from pipeline.plan.tasks import Record, Task

# A small picklable value, best a frozen dataclass with a ``__call__``. It is unpickled once per worker process, until
# work that pickles differently is bound: so what it caches on itself lives as long as the stage does, however often it
# is bound in it, and goes before other work begins.
Work = Callable[[Task], list[Record] | Callable[[], list[Record]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt at a task ended.

    Attributes:
        key: the task's.
        records: what it stored, or None if it did not succeed.
        error: ``Type: message`` if it did not.
        transient: the task may succeed if tried again (its worker was lost).
        charged: a transient loss counts against the task's retries. False: it was handed back without having
            run.
        traceback: formatted, where the task raised.
        exception: the ``PipelineError`` itself, if it was one.
        seconds: wall time of the attempt in the worker.
        worker: ``host:pid``.
    """

    key: str
    records: list[Record] | None = None
    error: str | None = None
    transient: bool = False
    charged: bool = True
    traceback: str = ""
    exception: PipelineError | None = None
    seconds: float = 0.0
    worker: str = ""


class Executor(Protocol):
    """Runs tasks somewhere. For one thread; only ``wake`` may be called from others and from signal handlers."""

    @property
    def capacity(self) -> int:
        """How many tasks to keep submitted at once, with those in flight that prefer a worker on top; may change as
        workers come and go, never below one."""
        ...

    def bind(self, work: Work) -> None:
        """Tasks submitted from now on are given to ``work``. Nothing may be in flight."""
        ...

    def log_to(self, folder: Path) -> None:
        """Each worker process keeps a log of its tasks in this folder from now on; see ``task_log``."""
        ...

    def submit(self, task: Task) -> None: ...

    def wait(self, timeout: float) -> list[Outcome]:
        """What has ended since the last call; waits up to ``timeout`` seconds for one, or for ``wake``.

        Raises:
            TasksFailed: there is nobody left to run anything.
        """
        ...

    def wake(self) -> None:
        """Makes a ``wait`` in progress, or the next one, return at once."""
        ...

    def cancel(self) -> None:
        """What has not begun shall not begin: it comes back uncharged. What runs may finish."""
        ...

    def workers(self) -> list[dict[str, object]]:
        """Who there is: ``name``, ``label`` (``host:pid``, as records have it), ``host``, ``pid``, ``address``,
        ``threads``, ``task`` (the key of the one it is at, or None), ``silent`` (seconds since it was heard of)."""
        ...

    def close(self) -> None: ...


def run_task(work: Work, task: Task) -> Outcome:
    """Runs ``work(task)`` in this process; never raises an ``Exception``."""
    return compute_task(work, task)()


def compute_task(work: Work, task: Task) -> Callable[[], Outcome]:
    """The arithmetic of ``work(task)``. The function returned stores what is left to store; neither raises an
    ``Exception``."""
    began = time.perf_counter()
    try:
        result = work(task)
    except (Exception, SystemExit) as error:
        failure = _failure(task, error, began)
        return lambda: failure

    def store() -> Outcome:
        try:
            records = result() if callable(result) else result
        except (Exception, SystemExit) as error:
            return _failure(task, error, began)
        return Outcome(task.key, records, seconds=time.perf_counter() - began, worker=worker_name())

    return store


def _failure(task: Task, error: BaseException, began: float) -> Outcome:
    return Outcome(
        task.key,
        error=describe(error),
        traceback="".join(traceback.format_exception(error)),
        exception=_portable(error),
        seconds=time.perf_counter() - began,
        worker=worker_name(),
    )


def describe(error: BaseException) -> str:
    """``Type: message``; the message alone for errors that are written for a person."""
    if isinstance(error, PipelineError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@cache
def _host() -> str:
    return socket.gethostname()


def worker_name() -> str:
    """``host:pid`` of this process."""
    return f"{_host()}:{os.getpid()}"


def _portable(error: BaseException) -> PipelineError | None:
    """The error if it is ours and survives pickling; a subclass with a constructor of its own may not."""
    if not isinstance(error, PipelineError):
        return None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kind = next(base for base in type(error).__mro__ if base.__module__ == "pipeline.errors")
        return kind(error.message, hint=error.hint)
    return error.with_traceback(None)
