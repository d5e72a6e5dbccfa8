"""A cluster on this machine: the scheduler in this process, each worker in its own, all on loopback."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pipeline.runtime.dask_settings import CONFIG, quiet_logs
from pipeline.runtime.environment import worker_environment
from pipeline.runtime.loop import LoopThread
from pipeline.runtime.supervisor import supervised

if TYPE_CHECKING:
    from pipeline.runtime.dask_executor import DaskExecutor


@contextlib.contextmanager
def open_local(
    workers: int, threads: int, environment: Mapping[str, str] | None = None, *, dashboard: bool = True
) -> Iterator[DaskExecutor]:
    """``workers`` processes here with ``threads`` BLAS and XLA threads each; one task at a time in each.

    Returns before the workers have reported: tasks may be submitted at once.

    Args:
        environment: variables for the workers, in addition to this process's own.
        dashboard: serve Dask's dashboard on loopback; ``executor.dashboard_link`` says where.
    """
    loop = LoopThread("dask")
    with contextlib.ExitStack() as stack:
        stack.callback(loop.stop)
        slots = stack.enter_context(supervised(workers, worker_environment(threads, environment), loop))
        # Not before the workers' processes: importing Dask takes 0.45 s, here and there at the same time. And in
        # this thread: imports of one package in two threads can deadlock.
        from dask import config

        from pipeline.runtime.crew import LocalCrew
        from pipeline.runtime.dask_executor import DaskExecutor

        stack.enter_context(config.set(CONFIG))
        stack.enter_context(quiet_logs())
        crew = LocalCrew(slots, threads)
        stack.callback(_quietly, lambda: loop.call(crew.close()))
        executor = DaskExecutor(loop, crew, loop.call(crew.start(dashboard=dashboard)))
        stack.callback(_quietly, executor.close)
        yield executor


def _quietly(close: Callable[[], object]) -> None:
    """Close without raising: the workers' processes end with their pipes whatever goes wrong here, and an error while
    tearing down must not take the place of the one that ended the run."""
    try:
        close()
    except Exception:
        logging.getLogger(__name__).debug("while closing", exc_info=True)
