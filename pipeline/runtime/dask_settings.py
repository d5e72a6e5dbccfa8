"""How we set up Dask: what is switched off, and why."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

LOOPBACK = "127.0.0.1"

# A worker that has not been heard of for this long is given up. Long, because silence is no proof: SciPy's LAPACK
# and BLAS wrappers hold the interpreter lock, and with it the heartbeats, for as long as they compute (measured:
# all 1.4 s of a scipy.linalg.eigh; numpy.linalg.eigh lets go of it). A frozen process is found by its state.
WORKER_TTL = "30 minutes"

THREADS = 2
"""Of a Dask worker: one computes, the other stores what was computed before (see ``worker_side``)."""

GPU = "GPU"
"""Dask resource of a worker that has a GPU, as many as it has threads: a task that needs one takes one of them."""

CONFIG: dict[str, object] = {
    # The bounded window of the frontier balances the load; stealing only adds messages.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": WORKER_TTL,
    # Workers return records, not arrays: there are no replicas to manage and no memory to watch.
    "distributed.scheduler.active-memory-manager.start": False,
    # Results travel as events; the log of past ones is of no use to us.
    "distributed.admin.low-level-log-length": 100,
    "distributed.scheduler.events-cleanup-delay": "10s",
    # The statistical profiler samples every 10 ms, the event loop checks itself every 20 ms.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.tick.limit": "1h",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.system-monitor.disk": False,
    "distributed.diagnostics.nvml": False,
    # A busy coordinator must not be taken for a dead one.
    "distributed.comm.timeouts.connect": "60s",
    # The kernel of a busy machine answers all the same: this is how long a cut cable stays unnoticed.
    "distributed.comm.timeouts.tcp": "20s",
}


@contextlib.contextmanager
def without_route() -> Iterator[None]:
    """Within, Dask does not complain that this machine has no route to the internet, which it asks for its address."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Couldn't detect a suitable IP address", RuntimeWarning)
        yield


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Within, Dask logs nothing below CRITICAL: losses and failures are reported by us, once."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client", "tornado", "bokeh")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
