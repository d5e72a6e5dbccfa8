"""The gate of the gram stage: corners of a few tiles are computed again in float64, in another tile size.

It catches a tile in the wrong place, rows out of order, and arithmetic that lost its digits. The workers do it, where
the kernel is loaded already.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ntk.linalg.gates import Gate
from pipeline.plan.gram import cross_array, gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.pieces import patient_tile
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, input_rows, opened, stored_record

KIND = "check"

SAMPLE_ROWS = 32
"""Rows and columns of each corner."""

SAMPLE_TILES = 4

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
"""Largest allowed deviation of a stored entry from its float64 recomputation, relative to √(K_ii K_jj)."""


def check_array(array: str) -> str:
    """Name of the array of deviations, one for each sampled tile, of a stored array."""
    return f"checks/{array}"


@dataclass(frozen=True, slots=True)
class CheckWork:
    """The largest deviation in the corner of one stored tile."""

    directory: str
    token: str
    spec: KernelSpec

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        array, kernel, index, (rows_of, i), (columns_of, j) = task.args
        store = opened(self.directory, self.token)
        exact = patient_tile(dataclasses.replace(self.spec, precision="float64", get=(kernel,)), SAMPLE_ROWS)
        stored = store.read(array, (i, j))[:SAMPLE_ROWS, :SAMPLE_ROWS].astype(np.float64)
        rows, columns = self.corner(rows_of, i), self.corner(columns_of, j)
        block = exact(rows, None if (rows_of, i) == (columns_of, j) else columns)[kernel]
        scale = np.sqrt(np.outer(*(np.abs(np.diag(exact(x)[kernel])) for x in (rows, columns))))
        worst = np.max(np.abs(stored - block) / np.maximum(scale, np.finfo(float).tiny), keepdims=True)
        return [stored_record(store, check_array(array), (index,), worst.ravel(), watch, task.key)]

    def corner(self, name: str, block: int) -> np.ndarray:
        """The first rows of a block of inputs, as stored."""
        rows = input_rows(self.directory, self.token, name, block, len(self.spec.input_shape))
        return rows[:SAMPLE_ROWS].astype(np.float64)


def run(session: Session) -> None:
    """Compute the deviations of a fixed random sample of tiles.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    upper = list(session.grid.upper())
    tasks = []
    for kernel in session.config.kernel.get:
        tasks += _tasks(session, gram_array(kernel), kernel, upper, "x_train")
        if session.config.gram.cross:
            every = list(session.store.keys(cross_array(kernel)))
            tasks += _tasks(session, cross_array(kernel), kernel, every, "x_test")
    work = CheckWork(str(session.directory), session.fingerprint("gram"), session.spec)
    session.run(tasks, work, "check")


def _tasks(
    session: Session, array: str, kernel: str, tiles: list[tuple[int, ...]] | list[tuple[int, int]], rows: str
) -> list[Task]:
    """The sampled tiles of one array that have not been looked at."""
    count = min(SAMPLE_TILES, len(tiles))
    picked = sorted(np.random.default_rng(0).choice(len(tiles), size=count, replace=False))
    name = check_array(array)
    session.create(name, (count,), (1,), fingerprint=str(session.store.array(array).attrs["fingerprint"]))
    have = session.journal.records(name)
    tasks = []
    for index, at in enumerate(picked):
        if (index,) not in have:
            i, j = tiles[at]
            args = (array, kernel, index, (rows, i), ("x_train", j))
            tasks.append(Task(f"check/{array}/{index}", KIND, args, writes=((name, (index,)),)))
    return tasks


def entries_gate(session: Session, array: str) -> Gate:
    """The gate on the largest deviation found in an array."""
    return Gate(float(session.store.read_all(check_array(array)).max()), TOLERANCE[session.spec.precision])
