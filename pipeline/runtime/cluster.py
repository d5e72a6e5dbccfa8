"""Opening the executor that a run's cluster settings ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.executor import Executor
from pipeline.runtime.serial import SerialExecutor


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """Everything in this process, one task after the other."""


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """``workers`` processes on this machine, each with ``threads`` BLAS and XLA threads, and one of ``gpus`` if any."""

    workers: int
    threads: int = 1
    dashboard: bool = True
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """``workers`` processes on other machines, which come within ``ready_seconds`` or are done without.

    Attributes:
        meeting: file that tells them where the scheduler is.
        interface: network interface that everything listens on; None: the host name's.
    """

    meeting: Path
    workers: int
    threads: int
    ready_seconds: float
    interface: str | None = None


Settings = SerialSettings | LocalSettings | RemoteSettings


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
        case LocalSettings(workers, threads, dashboard, gpus):
            from pipeline.runtime.local import open_local

            with open_local(workers, threads, environment, dashboard=dashboard, gpus=gpus) as executor:
                yield executor
        case RemoteSettings(meeting, workers, threads, ready_seconds, interface):
            from pipeline.runtime.remote import open_remote

            with open_remote(meeting, workers, threads, ready_seconds, interface) as executor:
                yield executor
