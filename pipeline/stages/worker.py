"""What a worker process keeps between tasks: the opened store and the blocks of inputs it used last."""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plan.tasks import Record
from pipeline.plan.tiles import TileGrid
from pipeline.store.arrays import ArrayStore, worker_name
from pipeline.store.journal import Journal

ROWS_KEPT = 4
"""Blocks of inputs a worker keeps: the row block of a supertile and the column blocks at hand."""


@functools.lru_cache(maxsize=2)
def opened(directory: str, token: str) -> ArrayStore:
    """The store of a run, opened once per process and stage (`token` changes with the arrays in it)."""
    return ArrayStore(Path(directory), Journal(Path(directory)).load(), writable=True)


@functools.lru_cache(maxsize=ROWS_KEPT)
def input_rows(directory: str, token: str, name: str, block: int, features: int) -> np.ndarray:
    """One block of rows of a stored input array, with axes after the first numbering `features`."""
    return opened(directory, token).read(f"inputs/{name}", (block, *(0,) * features))


def targets(directory: str, token: str, grid: TileGrid) -> np.ndarray:
    """The encoded training targets, float64 (n, outputs)."""
    store = opened(directory, token)
    return np.concatenate([store.read("inputs/y_train", (block, 0)) for block in range(grid.blocks)])


Write = Callable[..., None]


@contextmanager
def write_behind(store: ArrayStore, task: str, records: list[Record], *, depth: int = 1) -> Iterator[Write]:
    """A `write(name, key, block, started, seconds, note)` that returns at once: chunks are written, and `records`
    filled, by a thread, so that the next block is computed meanwhile. At most `depth` blocks wait.

    Raises:
        Whatever a write raised, at the next call or at the end.
    """
    waiting: queue.Queue[tuple[Any, ...] | None] = queue.Queue(maxsize=depth)
    failures: list[BaseException] = []

    def run() -> None:
        while (item := waiting.get()) is not None:
            if failures:
                continue
            name, key, block, started, seconds, note = item
            try:
                digest, nbytes = store.write(name, key, block)
            except BaseException as error:  # raised again in the computing thread
                failures.append(error)
                continue
            records.append(
                Record(
                    name,
                    key,
                    digest,
                    block.shape,
                    str(block.dtype),
                    seconds,
                    nbytes,
                    worker_name(),
                    started,
                    task,
                    note,
                )
            )

    def write(
        name: str,
        key: tuple[int, ...],
        block: np.ndarray,
        started: float,
        seconds: float,
        note: dict[str, Any],
    ) -> None:
        if failures:
            raise failures[0]
        waiting.put((name, key, block, started, seconds, note))

    thread = threading.Thread(target=run, name="write-behind", daemon=True)
    thread.start()
    try:
        yield write
    finally:
        waiting.put(None)
        thread.join()
    if failures:
        raise failures[0]


class Stopwatch:
    """Unix time for people, and a monotonic clock for durations, started together."""

    def __init__(self) -> None:
        self.started = time.time()
        self.clock = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.clock


def stored_record(
    store: ArrayStore, name: str, key: tuple[int, ...], block: np.ndarray, watch: Stopwatch, task: str = "",
    note: dict[str, Any] | None = None,
) -> Record:  # fmt: skip
    """Write a chunk now and return its record; `watch` was started when the work on it began."""
    digest, nbytes = store.write(name, key, block)
    return Record(
        name, key, digest, block.shape, str(block.dtype), watch.seconds, nbytes, worker_name(), watch.started,
        task, note or {},
    )  # fmt: skip
