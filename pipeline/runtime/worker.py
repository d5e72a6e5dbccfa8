"""A worker process: ``python -m pipeline.runtime.worker``, started and restarted by the coordinator.

It is told what to do in one line of JSON on its standard input, and lives as long as that pipe is open: when
the coordinator closes it, or dies in whatever way, the worker reads end-of-file and ends. So none is ever
left behind. A worker restarted by a nanny process would need that process, and one more for it; a pipe needs
nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from typing import Any

# From end-of-file on standard input to the end of the process, whatever a task is doing.
_LAST_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


async def _serve(orders: dict[str, Any]) -> None:
    from distributed import Worker

    from pipeline.runtime import ending

    closing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch_coordinator() -> None:
        sys.stdin.buffer.read()
        loop.call_soon_threadsafe(closing.set)
        threading.Thread(target=ending.end, name="ending", daemon=True).start()
        time.sleep(_LAST_SECONDS)
        os._exit(0)

    threading.Thread(target=watch_coordinator, name="coordinator-watch", daemon=True).start()
    worker = await Worker(**orders["options"])
    await asyncio.wait(
        [asyncio.ensure_future(closing.wait()), asyncio.ensure_future(worker.finished())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    await worker.close(timeout=_LAST_SECONDS / 2, executor_wait=False, reason="the coordinator is gone")


def _die_with_parent() -> None:
    """Has Linux kill this process with the thread that started it, which lives as long as its cluster.

    End-of-file does the same, but only once a task lets go of the interpreter lock: some hold it for minutes.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Imports first and reads its orders then: the import overlaps with the start of the scheduler."""
    # Ctrl-C and a batch system's SIGTERM go to the whole process group. What happens then is the
    # coordinator's decision: it lets running tasks finish, then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.enable()
    _die_with_parent()

    import distributed  # noqa: F401  (slow, hence before the orders are read)
    from dask import config

    from pipeline.runtime import ending
    from pipeline.runtime.dask_settings import quiet_logs

    line = sys.stdin.readline()
    if line:
        orders = json.loads(line)
        config.set(orders["config"])
        with quiet_logs():
            asyncio.run(_serve(orders))
    ending.end()
    # Not through the interpreter's own shutdown: a task that still runs holds a thread that it would wait
    # for.
    os._exit(0)


if __name__ == "__main__":
    main()
