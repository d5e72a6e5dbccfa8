"""A cluster on this machine: the scheduler in this process, each worker in its own, all on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.runtime.dask_settings import CONFIG, GPU, quiet_logs
from pipeline.runtime.environment import worker_environment
from pipeline.runtime.loop import LoopThread, quietly
from pipeline.runtime.supervisor import supervised

if TYPE_CHECKING:
    from pipeline.runtime.dask_executor import DaskExecutor


@contextlib.contextmanager
def open_local(
    workers: int,
    threads: int,
    environment: Mapping[str, str] | None = None,
    *,
    dashboard: bool = True,
    dashboard_port: int = 0,
    gpus: Sequence[Mapping[str, str]] = (),
) -> Iterator[DaskExecutor]:
    """``workers`` processes here with ``threads`` BLAS and XLA threads each; one task at a time in each.

    Returns before the workers have reported: tasks may be submitted at once.

    Args:
        environment: variables for the workers, in addition to this process's own.
        gpus: for each worker the variables of its GPU (``gpu_slot``), and then every task goes to one of these; none:
            workers see what this process does.
        dashboard: serve Dask's dashboard on loopback; ``executor.dashboard_link`` says where.
        dashboard_port: there, if it is free; 0: on any port.
    """
    loop = LoopThread("dask")
    with contextlib.ExitStack() as stack:
        stack.callback(loop.stop)
        each = worker_environment(threads, environment)
        environments = [each | dict(gpu) for gpu in gpus] or [each] * workers
        slots = stack.enter_context(supervised(environments, loop))
        # Not before the workers' processes: importing Dask takes 0.45 s, here and there at the same time. And in
        # this thread: imports of one package in two threads can deadlock.
        from dask import config

        from pipeline.runtime.crew import LocalCrew
        from pipeline.runtime.dask_executor import DaskExecutor

        stack.enter_context(config.set(CONFIG))
        stack.enter_context(quiet_logs())
        crew = LocalCrew(slots, threads, GPU if gpus else None)
        stack.callback(quietly, lambda: loop.call(crew.close()))
        address = loop.call(crew.start(dashboard=dashboard, dashboard_port=dashboard_port))
        executor = DaskExecutor(loop, crew, address, needs=GPU if gpus else None)
        stack.callback(quietly, executor.close)
        yield executor
