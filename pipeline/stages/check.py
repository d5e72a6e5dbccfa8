"""The gate of the gram stage: corners of a few tiles are computed again in float64, in another tile size.

It catches a tile in the wrong place, rows out of order, and arithmetic that lost its digits. The workers do it, where
the kernel is loaded already.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ntk.linalg.gates import Gate
from pipeline.plan.gram import gram_array
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, input_rows, opened, stored_record

KIND = "check"

SAMPLE_ROWS = 32
"""Rows and columns of each corner."""

SAMPLE_TILES = 4

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
"""Largest allowed deviation of a stored entry from its float64 recomputation, relative to √(K_ii K_jj)."""


def check_array(kernel: str) -> str:
    """Name of the array of deviations, one for each sampled tile."""
    return f"checks/{kernel}"


@dataclass(frozen=True, slots=True)
class CheckWork:
    """The largest deviation in the corner of one stored tile."""

    directory: str
    token: str
    spec: KernelSpec
    grid: TileGrid

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        kernel, index, i, j = task.args
        store = opened(self.directory, self.token)
        exact = dataclasses.replace(self.spec, precision="float64", get=(kernel,)).build(SAMPLE_ROWS)
        stored = store.read(gram_array(kernel), (i, j))[:SAMPLE_ROWS, :SAMPLE_ROWS].astype(np.float64)
        rows, columns = self.corner(i), self.corner(j)
        block = exact(rows, None if i == j else columns)[kernel]
        scale = np.sqrt(np.outer(*(np.abs(np.diag(exact(x)[kernel])) for x in (rows, columns))))
        worst = np.max(np.abs(stored - block) / np.maximum(scale, np.finfo(float).tiny), keepdims=True)
        return [stored_record(store, check_array(kernel), (index,), worst.ravel(), watch, task.key)]

    def corner(self, block: int) -> np.ndarray:
        """The first rows of a block of inputs, as stored."""
        rows = input_rows(self.directory, self.token, "x_train", block, len(self.spec.input_shape))
        return rows[:SAMPLE_ROWS].astype(np.float64)


def run(session: Session) -> None:
    """Compute the deviations of a fixed random sample of tiles.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    grid, kernels = session.grid, session.config.kernel.get
    tiles = list(grid.upper())
    count = min(SAMPLE_TILES, len(tiles))
    picked = sorted(np.random.default_rng(0).choice(len(tiles), size=count, replace=False))
    tasks = []
    for kernel in kernels:
        name = check_array(kernel)
        session.create(name, (count,), (1,), fingerprint=session.fingerprint("gram"))
        have = session.journal.records(name)
        for index, at in enumerate(picked):
            if (index,) not in have:
                args = (kernel, index, *tiles[at])
                tasks.append(Task(f"check/{kernel}/{index}", KIND, args, writes=((name, (index,)),)))
    work = CheckWork(str(session.directory), session.fingerprint("gram"), session.spec, grid)
    session.run(tasks, work, "check")


def entries_gate(session: Session, kernel: str) -> Gate:
    """The gate on the largest deviation found."""
    return Gate(float(session.store.read_all(check_array(kernel)).max()), TOLERANCE[session.spec.precision])
