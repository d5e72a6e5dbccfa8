"""The gram stage: every tile of the upper triangle of K(train, train), computed once and stored.

The figures that the later stages and the report need of the whole matrix (trace, Frobenius norm, extremes) are summed
from each tile's record, in the order of the tiles, so that they cost no pass over the matrix and do not depend on
the order of the work.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import GateError
from pipeline.plan.gram import (
    CROSS_KIND,
    Cut,
    blocks_kept,
    cross_array,
    each_cross_task,
    each_gram_task,
    gram_array,
    rows_kept,
    supertile,
)
from pipeline.plan.rates import assumed
from pipeline.plan.tasks import Chunk, Record, Task, Tasks
from pipeline.plan.tiles import TileGrid
from pipeline.stages import check
from pipeline.stages.depends import fingerprint
from pipeline.stages.inputs import store_inputs
from pipeline.stages.kernels import KernelSpec, cost
from pipeline.stages.pieces import Loaded, patient_tile
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, input_rows, opened, write_behind


@dataclass(frozen=True, slots=True)
class GramWork:
    """Computes and stores the tiles of a task, of K(train, train) or of K(test, train) by the task's kind; picklable,
    built once per worker."""

    directory: str
    token: str
    spec: KernelSpec
    grid: TileGrid
    kept: int

    def __call__(self, task: Task) -> list[Record]:
        kernel = patient_tile(self.spec, self.grid.tile)
        cross = task.kind == CROSS_KIND
        records: list[Record] = []
        pieces: dict[tuple[str, tuple[int, ...]], int] = {}

        def inspect(array: str, key: tuple[int, ...], block: np.ndarray) -> dict[str, Any]:
            note = self.inspect(array, key, block)
            return note | {"pieces": pieces[array, key]} if (array, key) in pieces else note

        with write_behind(opened(self.directory, self.token), task.key, records, inspect) as write:
            loaded: tuple[int, Loaded] | None = (
                None  # the rows of the last tile, which the next one often has too
            )
            for i, j, kernels in task.args:
                watch = Stopwatch()
                if loaded is None or loaded[0] != i:
                    loaded = i, kernel.load(self.rows("x_test" if cross else "x_train", i))
                x2 = None if i == j and not cross else self.rows("x_train", j)
                blocks = kernel(loaded[1], x2)
                seconds = watch.seconds
                for name in kernels:
                    array = cross_array(name) if cross else gram_array(name)
                    if kernel.pieces > 1:
                        pieces[array, (i, j)] = kernel.pieces
                    write(array, (i, j), blocks[name], watch.started, seconds)
        return records

    def inspect(self, array: str, key: tuple[int, ...], block: np.ndarray) -> dict[str, Any]:
        """The figures of a block, which must be finite.

        Raises:
            GateError: it is not; names the first bad entry.
        """
        symmetric = array.startswith("gram/")
        note = figures(block, diagonal=symmetric and key[0] == key[1])
        if not math.isfinite(note["squares"]):
            raise _not_finite(array, key, block, self.grid)
        return note

    def rows(self, name: str, block: int) -> np.ndarray:
        features = len(self.spec.input_shape)
        return input_rows(self.directory, self.token, name, block, features, kept=self.kept)


def _not_finite(array: str, key: tuple[int, ...], block: np.ndarray, grid: TileGrid) -> GateError:
    bad = np.argwhere(~np.isfinite(block))
    if not len(bad):
        return GateError(
            f"{array}: tile {key} overflows when squared", hint="scale the inputs or the weights down"
        )
    r, c = (int(index) for index in bad[0])
    row, column = (index * grid.tile + offset for index, offset in zip(key, (r, c), strict=True))
    return GateError(
        f"{array}: tile {key} has {len(bad)} entries that are not finite, the first K[{row}, {column}] = "
        f"{block[r, c]}",
        hint="scale the inputs or the weights down; look at these two rows, and at the variances that the architecture "
        "gives them",
    )


PANEL_ENTRIES = 2**16
"""Entries of a tile that are converted to float64 at once, to stay in the cache."""


def figures(block: np.ndarray, *, diagonal: bool) -> dict[str, float]:
    """Sums and extremes of a tile in float64, a JSON-able note on its record.

    `squares` is the tile's share of ‖K‖²_F: an off-diagonal tile stands for its transpose as well.
    """
    rows = max(1, PANEL_ENTRIES // block.shape[1])
    panels = (block[top : top + rows].astype(np.float64).ravel() for top in range(0, len(block), rows))
    squares = math.fsum(float(panel @ panel) for panel in panels) * (1 if diagonal else 2)
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
    store_inputs(session)
    names = create_arrays(session)
    session.adopt(names)
    cut, kept = _cut(session, shard)
    tasks = _tasks(session, cut, shard, session.journal.done(names))
    work = GramWork(str(session.directory), session.fingerprint("gram"), session.spec, session.grid, kept)
    summary = session.run(tasks, work, "gram")
    if shard is not None:
        return _share_metrics(shard, 0 if summary is None else summary.done)
    check.run(session)
    return session.finish("gram", _close(session, session.config.kernel.get))


def create_arrays(session: Session) -> list[str]:
    """The arrays of this stage, made where they are not there."""
    grid, config = session.grid, session.config
    shapes = {gram_array(kernel): (grid.n, grid.n) for kernel in config.kernel.get}
    fields = dict.fromkeys(shapes, fingerprint(session.identity))
    if config.gram.cross:
        cross = {cross_array(kernel): (len(session.inputs.x_test), grid.n) for kernel in config.kernel.get}
        shapes |= cross
        # Of one kernel, whichever others are wanted beside it.
        own = {name: value for name, value in session.stages["gram"].items() if name != "kernel.get"}
        fields |= dict.fromkeys(cross, fingerprint(own))
    for name, shape in shapes.items():
        session.create(
            name, shape, (grid.tile, grid.tile), fingerprint=fields[name], dtype=session.spec.precision,
            compression=config.gram.compression,
        )  # fmt: skip
    return list(shapes)


def _tasks(session: Session, cut: Cut, shard: tuple[int, int] | None, done: set[Chunk]) -> Tasks:
    """What is left to do of the whole matrix, or of one share of it."""
    if shard is None:
        return Tasks(lambda: _plan(session, cut, done))
    # Shares are cut from the whole plan, so that they are disjoint whatever each finds done when it starts.
    fresh = _plan(session, cut, ())
    mine = {task.key for index, task in enumerate(fresh) if index % shard[1] == shard[0] - 1}
    return Tasks(lambda: (task for task in _plan(session, cut, done) if task.key in mine))


def _plan(session: Session, cut: Cut, done: Collection[Chunk]) -> Iterator[Task]:
    grid, kernels = session.grid, session.config.kernel.get
    yield from each_gram_task(grid, kernels, done, cut)
    if session.config.gram.cross:
        blocks = -(-len(session.inputs.x_test) // grid.tile)
        yield from each_cross_task(blocks, grid.blocks, kernels, done, cut.side)


def _cut(session: Session, shard: tuple[int, int] | None) -> tuple[Cut, int]:
    """How the matrix is cut into tasks, and how many blocks of inputs a worker keeps for that.

    Shares may be computed by machines of different size: theirs depends on the problem and their number alone.
    """
    threads, workers = (
        (session.resources.threads, session.resources.workers) if shard is None else (1, shard[1])
    )
    spec = session.spec
    flops, size = cost(spec).flops_per_pair, math.prod(spec.input_shape)
    rates = assumed(flops, size, spec.itemsize, device=session.resources.device, threads=threads)
    seconds = session.grid.tile**2 * rates.pair_seconds
    cut = supertile(session.grid, seconds, workers)
    return cut, min(blocks_kept(cut.side), rows_kept(session.grid.tile, seconds) // session.grid.tile)


def _share_metrics(shard: tuple[int, int], tasks: int) -> dict[str, Any]:
    return {"shard": f"{shard[0]}/{shard[1]}", "tasks": tasks}


def _close(session: Session, kernels: tuple[str, ...]) -> dict[str, Any]:
    """Figures of the whole matrix from the records, and the gate on sampled entries."""
    grid = session.grid
    metrics: dict[str, Any] = {
        "tiles": grid.count,
        "tile": grid.tile,
        "seconds": 0.0,
        "bytes": 0,
        "tiles_in_pieces": 0,
    }
    for kernel in kernels:
        records = session.journal.records(gram_array(kernel))
        ordered = [records[key] for key in grid.upper()]
        notes = [_figures_of(session, record) for record in ordered]
        metrics["seconds"] += sum(record.seconds for record in ordered) / len(kernels)
        metrics["bytes"] += sum(record.nbytes for record in ordered)
        metrics["tiles_in_pieces"] += sum("pieces" in record.note for record in ordered)
        trace = math.fsum(note["trace"] for note in notes if "trace" in note)
        metrics[kernel] = {
            "trace": trace,
            "mean_diagonal": trace / grid.n,
            "frobenius_norm": math.sqrt(math.fsum(note["squares"] for note in notes)),
            "min": min(note["min"] for note in notes),
            "max": max(note["max"] for note in notes),
            "gates": {"entries": check.entries_gate(session, gram_array(kernel)).to_dict()},
        }
        if session.config.gram.cross:
            cross = cross_array(kernel)
            metrics["bytes"] += sum(record.nbytes for record in session.journal.records(cross).values())
            metrics[kernel]["gates"]["cross entries"] = check.entries_gate(session, cross).to_dict()
    session.require_gates("gram", {kernel: metrics[kernel]["gates"] for kernel in kernels})
    return metrics


def _figures_of(session: Session, record: Record) -> dict[str, float]:
    """A tile's figures; one that was adopted has none on its record yet."""
    if "squares" in record.note:
        return record.note
    return figures(session.store.read(record.array, record.key), diagonal=record.key[0] == record.key[1])
