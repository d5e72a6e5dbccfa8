"""How a run is doing at this moment, gathered from its events: rates, time left, and what each worker does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.config.sizes import human_bytes, human_seconds
from pipeline.runtime.events import Finished, Retried, Started, TaskDone, WorkersChanged
from pipeline.store.live import Sign

if TYPE_CHECKING:
    from pipeline.stages.session import Progress

SAY_SECONDS = 1.0
"""Between two writings of the file that `ntk status` reads."""

SHOWN_WORKERS = 16
"""Workers that are shown one by one; of more the others are counted."""


@dataclass
class Board:
    """A listener for a session that keeps count; with a `sign` it says what it knows there, now and then.

    Attributes:
        label: what the present set of tasks is called.
        total, done: chunks.
        bytes: stored by now.
        retries: tasks that were lost with their worker and tried again.
        dashboard: link to Dask's dashboard, if there is one.
        workers: those that are there, as ``Executor.workers`` gives them.
        chunks: done by each worker (``host:pid``), also of those that are gone.
    """

    sign: Sign | None = None
    label: str = ""
    total: int = 0
    done: int = 0
    bytes: int = 0
    retries: int = 0
    dashboard: str | None = None
    workers: tuple[dict[str, Any], ...] = ()
    chunks: dict[str, int] = field(default_factory=dict)
    _began: float = 0.0
    _said: float = 0.0

    def __call__(self, progress: Progress) -> None:
        event = progress.event
        if isinstance(event, Started):
            self.label, self._began = progress.label, time.monotonic()
            self.bytes = self.retries = 0
            self.chunks.clear()
            self.workers = tuple(worker | {"task": None} for worker in self.workers)
        elif isinstance(event, TaskDone):
            self.bytes += sum(record.nbytes for record in event.records)
            self.chunks[event.worker] = self.chunks.get(event.worker, 0) + max(len(event.records), 1)
        elif isinstance(event, Retried):
            self.retries += 1
        elif isinstance(event, WorkersChanged):
            self.workers = event.workers
        self.total, self.done = progress.total, progress.done
        now = time.monotonic()
        if self.sign is not None and (
            now - self._said >= SAY_SECONDS or isinstance(event, Started | Finished)
        ):
            self._said = now
            self.sign.write(self.document())

    @property
    def elapsed(self) -> float:
        """Seconds since the present set of tasks began."""
        return max(time.monotonic() - self._began, 1e-3)

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the rate so far; None before anything is done."""
        return self.elapsed * (self.total - self.done) / self.done if self.done else None

    def document(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "label": self.label,
            "done": self.done,
            "total": self.total,
            "chunks_per_second": self.done / self.elapsed,
            "bytes_per_second": self.bytes / self.elapsed,
            "seconds_left": self.left,
            "retries": self.retries,
            "dashboard": self.dashboard,
            "workers": [
                {
                    "worker": worker["label"],
                    "task": worker.get("task"),
                    "chunks": self.chunks.get(str(worker["label"]), 0),
                    "seconds_silent": worker.get("silent", 0.0),
                }
                for worker in self.workers
            ],
        }


def rate_text(document: dict[str, Any]) -> str:
    """Chunks and bytes a second, and retries."""
    retries = f", {document['retries']} retried" if document["retries"] else ""
    return f"{document['chunks_per_second']:.3g}/s, {human_bytes(document['bytes_per_second'])}/s{retries}"


def left_text(document: dict[str, Any]) -> str:
    left = document["seconds_left"]
    return "" if left is None else f", about {human_seconds(left)} left"


def worker_lines(document: dict[str, Any]) -> list[str]:
    """A line for each worker: its name, what it is busy with, what it has done, and when it was last heard of."""
    workers = document["workers"]
    width = max((len(worker["worker"]) for worker in workers), default=0)
    lines = [
        f"{worker['worker']:<{width}}  {worker['chunks']:>6,} done  {worker['task'] or 'waits':<14}"
        + (f"  silent for {human_seconds(worker['seconds_silent'])}" if worker["seconds_silent"] > 5 else "")
        for worker in workers[:SHOWN_WORKERS]
    ]
    if len(workers) > SHOWN_WORKERS:
        rest = workers[SHOWN_WORKERS:]
        busy = sum(worker["task"] is not None for worker in rest)
        lines.append(f"and {len(rest):,} more, {busy:,} of them busy")
    return [line.rstrip() for line in lines]
