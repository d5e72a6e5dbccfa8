"""What a run did so far as Prometheus counters, which Dask's scheduler serves with its own at `/metrics`."""

from __future__ import annotations

from functools import cache

from pipeline.runtime.events import Event, Retried, TaskDone, TaskFailed


class Counters:
    """Counters of this process; `prometheus_client` must be there. Arrays are counted by the first part of their
    names: `gram`, `solution`, …"""

    def __init__(self) -> None:
        from prometheus_client import Counter

        self._tasks = Counter("ntk_tasks_done", "Tasks whose records are safe")
        self._seconds = Counter("ntk_task_seconds", "Wall time of these tasks in their workers")
        self._chunks = Counter("ntk_chunks_stored", "Chunks (tiles) that tasks stored", ["array"])
        self._bytes = Counter("ntk_bytes_stored", "Bytes of these chunks in the store", ["array"])
        self._retried = Counter("ntk_tasks_retried", "Losses of tasks that were tried again")
        self._failed = Counter("ntk_tasks_failed", "Tasks that failed for good")

    def count(self, event: Event) -> None:
        """Take an event of `drive` into account."""
        if isinstance(event, TaskDone):
            self._tasks.inc()
            self._seconds.inc(event.seconds)
            for record in event.records:
                array = record.array.partition("/")[0]
                self._chunks.labels(array).inc()
                self._bytes.labels(array).inc(record.nbytes)
        elif isinstance(event, Retried):
            self._retried.inc()
        elif isinstance(event, TaskFailed):
            self._failed.inc()


@cache
def counters() -> Counters | None:
    """Those of this process; None without `prometheus_client`."""
    try:
        return Counters()
    except ModuleNotFoundError:
        return None
