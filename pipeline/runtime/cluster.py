"""Opening the executor that a run's cluster settings ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.runtime.executor import Executor
from pipeline.runtime.serial import SerialExecutor


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """Everything in this process, one task after the other."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """``workers`` processes on this machine, each with ``threads`` BLAS and XLA threads."""

    workers: int
    threads: int = 1
    dashboard: bool = True


Settings = SerialSettings | LocalSettings


@contextlib.contextmanager
def open_executor(settings: Settings, environment: Mapping[str, str] | None = None) -> Iterator[Executor]:
    """The executor for these settings, open for as long as the context lasts.

    Opened once for a whole run and bound to each stage's work in turn (``executor.bind``). Worker processes
    start importing before this returns, so open it before the coordinator's own slow imports.

    Args:
        environment: variables for worker processes, in addition to this process's own.
    """
    match settings:
        case SerialSettings():
            yield SerialExecutor()
        case LocalSettings(workers, threads, dashboard):
            from pipeline.runtime.local import open_local

            with open_local(workers, threads, environment, dashboard=dashboard) as executor:
                yield executor
