"""What a worker process keeps between tasks: the opened store and the blocks of inputs it used last."""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.cluster import SCRATCH_VARIABLE
from pipeline.plan.tasks import Record
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.ending import at_end
from pipeline.store.arrays import ArrayStore, worker_name
from pipeline.store.journal import Journal
from pipeline.store.node_copies import NodeCopies

BLOCKS_KEPT = 3
"""Blocks of inputs a worker keeps unless told otherwise: two that meet in a tile and the one before."""


@functools.lru_cache(maxsize=2)
def opened(directory: str, token: str) -> ArrayStore:
    """The store of a run, opened once per process and stage (`token` changes with the arrays in it)."""
    return ArrayStore(directory, Journal(directory).load(), writable=True)


@functools.cache
def has_gpu() -> bool:
    """Whether JAX has a GPU in this process. Where there is none on the machine, JAX is not imported to say so."""
    if not Path("/dev/nvidiactl").exists():
        return False
    import jax

    return jax.default_backend() == "gpu"


DEVICE_SHARE = 0.6
"""Of the memory that JAX has of a GPU, for tiles that stay there between tasks."""


@functools.cache
def device_room() -> int:
    """Bytes for tiles that stay on this process's GPU between tasks."""
    from ntk.device import device_memory

    return int(DEVICE_SHARE * device_memory())


_inputs: OrderedDict[tuple[str, str, str, int], np.ndarray] = OrderedDict()
"""The blocks of inputs used last, the latest at the end."""

_inputs_lock = threading.Lock()


def input_rows(
    directory: str, token: str, name: str, block: int, features: int, *, kept: int = BLOCKS_KEPT
) -> np.ndarray:
    """One block of rows of a stored input array, with axes after the first numbering `features`, read-only; this and
    the last blocks asked for, `kept` in all, stay in memory."""
    key = (directory, token, name, block)
    with _inputs_lock:
        rows = _inputs.get(key)
        if rows is None:
            while len(_inputs) >= kept:
                _inputs.popitem(last=False)
            rows = _inputs[key] = _view(directory, token, f"inputs/{name}", (block, *(0,) * features))
        _inputs.move_to_end(key)
    return rows


def _view(directory: str, token: str, name: str, key: tuple[int, ...]) -> np.ndarray:
    """A chunk of the inputs, read-only: of this node's copy where it has a scratch directory."""
    store, scratch = opened(directory, token), os.environ.get(SCRATCH_VARIABLE)
    return _node_copies(scratch, directory).view(store, name, key) if scratch else store.view(name, key)


@functools.cache
def _node_copies(scratch: str, directory: str) -> NodeCopies:
    copies = NodeCopies(Path(scratch), directory)
    at_end(copies.leave)
    return copies


def targets(directory: str, token: str, grid: TileGrid) -> np.ndarray:
    """The encoded training targets, float64 (n, outputs)."""
    blocks = [_view(directory, token, "inputs/y_train", (block, 0)) for block in range(grid.blocks)]
    return np.concatenate(blocks)


Write = Callable[[str, tuple[int, ...], np.ndarray, float, float], None]
Inspect = Callable[[str, tuple[int, ...], np.ndarray], dict[str, Any]]


@contextmanager
def write_behind(
    store: ArrayStore,
    task: str,
    records: list[Record],
    inspect: Inspect,
    *,
    depth: int = 1,
    spent: Callable[[tuple[int, ...]], tuple[int, ...] | None] | None = None,
) -> Iterator[Write]:
    """A `write(name, key, block, started, seconds)` that returns at once: a thread looks at the block, writes it and
    adds its record, so that the next one is computed meanwhile. At most `depth` blocks wait.

    `inspect(name, key, block)` gives the note of a block's record; what it refuses is not written. `spent` says over
    which chunk each is written (`ArrayStore.write`).

    Raises:
        Whatever `inspect` or a write raised, at the next call or at the end.
    """
    waiting: queue.Queue[tuple[str, tuple[int, ...], np.ndarray, float, float] | None] = queue.Queue(depth)
    failures: list[BaseException] = []

    def store_one(name: str, key: tuple[int, ...], block: np.ndarray, started: float, seconds: float) -> None:
        note = inspect(name, key, block)
        digest, nbytes = store.write(name, key, block, spent=None if spent is None else spent(key))
        dtype = str(block.dtype)
        records.append(
            Record(
                name, key, digest, block.shape, dtype, seconds, nbytes, worker_name(), started, task, note
            )
        )  # fmt: skip

    def run() -> None:
        while (item := waiting.get()) is not None:
            if failures:
                continue
            try:
                store_one(*item)
            except BaseException as error:  # raised again in the computing thread
                failures.append(error)

    def write(name: str, key: tuple[int, ...], block: np.ndarray, started: float, seconds: float) -> None:
        if failures:
            raise failures[0]
        waiting.put((name, key, block, started, seconds))

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
    note: dict[str, Any] | None = None, spent: tuple[int, ...] | None = None,
) -> Record:  # fmt: skip
    """Write a chunk now (over another, see `ArrayStore.write`) and return its record; `watch` was started when the
    work on it began."""
    digest, nbytes = store.write(name, key, block, spent=spent)
    return Record(
        name, key, digest, block.shape, str(block.dtype), watch.seconds, nbytes, worker_name(), watch.started,
        task, note or {},
    )  # fmt: skip
