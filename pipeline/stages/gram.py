"""The gram stage: every tile of the upper triangle of K(train, train), computed once and stored.

The figures that the later stages and the report need of the whole matrix (trace, Frobenius norm, extremes) are summed
from each tile's record, in the order of the tiles, so that they cost no pass over the matrix and do not depend on
the order of the work.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import GateError
from pipeline.plan.gram import gram_array, gram_tasks
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.stages import check
from pipeline.stages.depends import fingerprint
from pipeline.stages.kernels import KernelSpec, cost
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, input_rows, opened, write_behind

TASK_SECONDS = 1.0
"""How long one task should last: long against the scheduler's few milliseconds, short against a lost worker."""

TASKS_PER_WORKER = 8
"""No fewer tasks than this for each worker, so that the last ones end together."""

UNKNOWN_TILES = 4
"""Tiles of a task whose kernel is a function of the user's, of which nothing is known."""

ASSUMED_FLOPS = 20e9
"""Flops a second of one thread, for cutting tasks; plans for people use a calibrated figure."""


@dataclass(frozen=True, slots=True)
class GramWork:
    """Computes and stores the tiles of a task; picklable, built once per worker."""

    directory: str
    token: str
    spec: KernelSpec
    grid: TileGrid

    def __call__(self, task: Task) -> list[Record]:
        kernel = self.spec.build(self.grid.tile)
        store = opened(self.directory, self.token)
        records: list[Record] = []
        with write_behind(store, task.key, records) as write:
            for i, j, kernels in task.args:
                watch = Stopwatch()
                x1 = self.rows(i)
                blocks = kernel(x1, None if i == j else self.rows(j))
                seconds = watch.seconds
                for name in kernels:
                    block = blocks[name]
                    note = figures(block, diagonal=i == j)
                    if not math.isfinite(note["squares"]):
                        raise _not_finite(name, i, j, block, self.grid)
                    write(gram_array(name), (i, j), block, watch.started, seconds, note)
        return records

    def rows(self, block: int) -> np.ndarray:
        return input_rows(self.directory, self.token, "x_train", block, len(self.spec.input_shape))


def _not_finite(name: str, i: int, j: int, block: np.ndarray, grid: TileGrid) -> GateError:
    bad = np.argwhere(~np.isfinite(block))
    if not len(bad):
        return GateError(
            f"{name}: tile ({i}, {j}) overflows when squared", hint="scale the inputs or the weights down"
        )
    r, c = (int(index) for index in bad[0])
    row, column = grid.rows(i).start + r, grid.rows(j).start + c
    return GateError(
        f"{name}: tile ({i}, {j}) has {len(bad)} entries that are not finite, the first K[{row}, {column}] = "
        f"{block[r, c]}",
        hint="look at these two rows, and at the variances that the architecture gives them",
    )


def figures(block: np.ndarray, *, diagonal: bool) -> dict[str, float]:
    """Sums and extremes of a tile in float64, a JSON-able note on its record.

    `squares` is the tile's share of ‖K‖²_F: an off-diagonal tile stands for its transpose as well.
    """
    flat = block.astype(np.float64, copy=False).ravel()
    squares = float(flat @ flat) * (1 if diagonal else 2)
    note = {"squares": squares, "min": float(block.min()), "max": float(block.max())}
    if diagonal:
        note["trace"] = float(np.trace(block, dtype=np.float64))
    return note


def run(session: Session, *, shard: tuple[int, int] | None = None) -> dict[str, Any]:
    """Compute what is missing of the Gram matrix and close the stage; returns its metrics.

    Args:
        session: the opened run.
        shard: (K, M): compute only the K-th (from 1) of M disjoint shares, and leave the closing to a later run.

    Raises:
        GateError: a tile is not finite, or sampled entries disagree with their recomputation.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    finished = session.finished("gram")
    if finished is not None:
        return finished if shard is None else _share_metrics(shard, 0)
    session.start_workers()
    grid, kernels = session.grid, session.config.kernel.get
    names = tuple(gram_array(kernel) for kernel in kernels)
    store_inputs(session)
    for name in names:
        session.create(
            name, (grid.n, grid.n), (grid.tile, grid.tile), fingerprint=fingerprint(session.identity),
            dtype=session.spec.precision, compression=session.config.gram.compression,
        )  # fmt: skip
    session.adopt(names)
    done = session.journal.done(names)
    tasks = gram_tasks(grid, kernels, done, tiles_per_task(session))
    if shard is not None:
        # Shares are cut from the whole plan, so that they are disjoint whatever each finds done when it starts.
        every = gram_tasks(grid, kernels, (), tiles_per_task(session))
        mine = {task.key for index, task in enumerate(every) if index % shard[1] == shard[0] - 1}
        tasks = tuple(task for task in tasks if task.key in mine)
    summary = session.run(
        tasks, GramWork(str(session.directory), session.fingerprint("gram"), session.spec, grid), "gram"
    )
    if shard is not None:
        return _share_metrics(shard, 0 if summary is None else summary.done)
    check.run(session)
    return session.finish("gram", _close(session, kernels))


def _share_metrics(shard: tuple[int, int], tasks: int) -> dict[str, Any]:
    return {"shard": f"{shard[0]}/{shard[1]}", "tasks": tasks}


def store_inputs(session: Session) -> None:
    """Put the prepared data into the store, in blocks of one tile's rows, where every worker finds them."""
    tile = session.grid.tile
    for name, array in session.inputs.arrays.items():
        array = array.astype(session.spec.precision, copy=False) if name.startswith("x") else array
        full = f"inputs/{name}"
        session.create(
            full, array.shape, (tile, *array.shape[1:]), fingerprint=session.inputs.fingerprints[name],
            dtype=str(array.dtype),
        )  # fmt: skip
        have = session.journal.records(full)
        for block in range(-(-len(array) // tile)):
            key = (block, *(0,) * (array.ndim - 1))
            if key not in have:
                session.put(full, key, array[block * tile : (block + 1) * tile])


def tiles_per_task(session: Session) -> int:
    """Neighbouring tiles that one task computes: enough for a task to last about a second, few enough that every
    worker has work to the end."""
    fair = session.grid.count // (TASKS_PER_WORKER * session.resources.workers)
    if session.spec.function:
        return max(1, min(UNKNOWN_TILES, fair))
    flops, _ = cost(session.spec)
    seconds = flops * session.grid.tile**2 / ASSUMED_FLOPS / session.resources.threads
    return max(1, min(round(TASK_SECONDS / max(seconds, 1e-9)), fair))


def _close(session: Session, kernels: tuple[str, ...]) -> dict[str, Any]:
    """Figures of the whole matrix from the records, and the gate on sampled entries."""
    grid = session.grid
    metrics: dict[str, Any] = {"tiles": grid.count, "tile": grid.tile, "seconds": 0.0, "bytes": 0}
    for kernel in kernels:
        records = session.journal.records(gram_array(kernel))
        ordered = [records[key] for key in grid.upper()]
        notes = [_figures_of(session, record) for record in ordered]
        metrics["seconds"] += sum(record.seconds for record in ordered) / len(kernels)
        metrics["bytes"] += sum(record.nbytes for record in ordered)
        trace = math.fsum(note["trace"] for note in notes if "trace" in note)
        metrics[kernel] = {
            "trace": trace,
            "mean_diagonal": trace / grid.n,
            "frobenius_norm": math.sqrt(math.fsum(note["squares"] for note in notes)),
            "min": min(note["min"] for note in notes),
            "max": max(note["max"] for note in notes),
            "gates": {"entries": check.entries_gate(session, kernel).to_dict()},
        }
    session.require_gates("gram", {kernel: metrics[kernel]["gates"] for kernel in kernels})
    return metrics


def _figures_of(session: Session, record: Record) -> dict[str, float]:
    """A tile's figures; one that was adopted has none on its record yet."""
    if "squares" in record.note:
        return record.note
    return figures(session.store.read(record.array, record.key), diagonal=record.key[0] == record.key[1])
