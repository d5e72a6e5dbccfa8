"""What ``drive`` tells a listener while it runs: small frozen values for a progress display or a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.plan.tasks import Record


@dataclass(frozen=True, slots=True)
class Started:
    """``total`` tasks, ``done`` of them finished earlier."""

    total: int
    done: int


@dataclass(frozen=True, slots=True)
class TaskDone:
    """A task's records are safe; ``done`` of ``total`` now. ``seconds``: its wall time in its worker."""

    key: str
    records: tuple[Record, ...]
    seconds: float
    worker: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Retried:
    """A task was lost with its worker and will be tried again; ``losses``: how often that happened to it."""

    key: str
    error: str
    losses: int


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """A task failed for good."""

    key: str
    error: str
    traceback: str


@dataclass(frozen=True, slots=True)
class WorkersChanged:
    """``workers`` are there now, as ``Executor.workers`` gives them; told when one comes or goes or does something
    else, at most twice a second."""

    workers: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a drive did.

    Attributes:
        done: tasks completed by it.
        failed: tasks failed for good.
        retries: losses of tasks that were tried again.
        wall_seconds: from first to last.
        busy_seconds: sum of the tasks' own wall times in their workers.
    """

    done: int
    failed: int
    retries: int
    wall_seconds: float
    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """Told however the drive ended, also before it raises."""

    summary: Summary


Event = Started | TaskDone | Retried | TaskFailed | WorkersChanged | Finished
Listener = Callable[[Event], None]
