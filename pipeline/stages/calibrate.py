"""Calibration of a plan: a few tiles computed and stored by the workers themselves, all of them at work at once.

They do what the gram stage does, in a run directory that is removed afterwards, beside where the run itself will be:
so threads, memory bandwidth, disk and compilation are those of the run.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from pipeline.config.model import RunConfig
from pipeline.data import Inputs
from pipeline.plan.gram import KIND, blocks_kept, gram_array
from pipeline.plan.plan import Plan
from pipeline.plan.rates import Rates
from pipeline.plan.resources import Resources
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.events import TaskDone
from pipeline.stages import gram
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.opening import open_session
from pipeline.stages.session import Progress, Session
from pipeline.stages.worker import opened, worker_name
from pipeline.store.place import place, temporary_beside

ROUND_SECONDS = 2.0
"""About what a round of tiles may take; a tile that would take longer is measured in a smaller size."""

MOST_TILES = 16
SMALLEST_TILE = 8
PRODUCT_SIZE = 768
"""Rows of the float64 matrices whose product is timed."""


@dataclass(frozen=True, slots=True)
class StoreWork:
    """Times a float64 product, and reading and writing one stored tile; the figures are the record's note."""

    directory: str
    token: str
    array: str

    def __call__(self, task: Task) -> list[Record]:
        store = opened(self.directory, self.token)
        square = np.random.default_rng(0).standard_normal((PRODUCT_SIZE, PRODUCT_SIZE))
        np.matmul(square, square)
        began = time.perf_counter()
        np.matmul(square, square)
        multiplied = time.perf_counter()
        block = store.read(self.array, (0, 1))
        read = time.perf_counter()
        store.write(self.array, (0, 1), block)
        written = time.perf_counter()
        note = {
            "products": 2 * PRODUCT_SIZE**3 / (multiplied - began),
            "read": block.nbytes / (read - multiplied),
            "write": block.nbytes / (written - read),
        }
        return [Record("calibration", (), "", (), "", 0.0, 0, worker_name(), 0.0, task.key, note)]


def measured(config: RunConfig, spec: KernelSpec, x: np.ndarray, plan: Plan, resources: Resources) -> Rates:
    """Rates of the workers of these resources.

    Args:
        config: the run, for where it will be and how it stores.
        x: prepared inputs, two tiles of them where there are so many.
        plan: with assumed rates.

    Raises:
        InputError, GateError, TasksFailed: from the tiles.
    """
    tile = _size(plan, len(x))
    grid = TileGrid(2 * tile, tile)
    inputs = Inputs(x[: grid.n], None, x[:0], None, (), {"x_train": "calibration"})
    config = config.model_copy(
        update={
            "solve": config.solve.model_copy(update={"method": "none"}),
            "spectrum": config.spectrum.model_copy(update={"method": "none"}),
            "gram": config.gram.model_copy(update={"cross": False}),
        }
    )
    with temporary_beside(place(config.out)) as folder:
        config = config.model_copy(update={"out": str(folder)})
        with open_session(config, inputs, spec, {"calibration": ""}, grid, resources) as session:
            return _rates(session, plan.rates)


def _rates(session: Session, assumed: Rates) -> Rates:
    grid, workers = session.grid, session.resources.workers
    began = time.perf_counter()
    session.start_workers()
    gram.store_inputs(session)
    gram.create_arrays(session)
    _round(session, 1)
    first = time.perf_counter() - began
    tiles = max(2, min(MOST_TILES, int(ROUND_SECONDS / (assumed.pair_seconds * grid.tile**2))))
    done = _round(session, tiles)
    diagonal = fmean(r.seconds for event in done for r in event.records if r.key == (0, 0))
    off = fmean(r.seconds for event in done for r in event.records if r.key == (0, 1))
    # Of a task's wall time the kernels are a part; what is not hidden behind them belongs to the tiles alike.
    whole = fmean((event.seconds - (diagonal - off)) / (tiles + 1) for event in done)
    names = session.config.kernel.get
    work = StoreWork(str(session.directory), session.fingerprint("gram"), gram_array(names[0]))
    notes = session.collect([Task(f"store/{n}", "store") for n in range(workers)], work)
    figures = {name: fmean(record.note[name] for record in notes) for name in ("products", "read", "write")}
    pair, on_diagonal = whole / grid.tile**2, (whole + diagonal - off) / grid.tile**2
    startup = max(first - 2 * whole - (diagonal - off), 0.0)
    return dataclasses.replace(
        assumed, pair_seconds=pair, diagonal_seconds=on_diagonal, startup=startup, measured=True, **figures
    )


def _round(session: Session, tiles: int) -> list[TaskDone]:
    """One task on each worker: so many tiles off the diagonal, and one on it."""
    names, grid = session.config.kernel.get, session.grid
    args = ((0, 1, names),) * tiles + ((0, 0, names),)
    writes = tuple((gram_array(name), (i, j)) for i, j, _ in args for name in names)
    tasks = [Task(f"calibrate/{n}", KIND, args, writes=writes) for n in range(session.resources.workers)]
    work = gram.GramWork(
        str(session.directory), session.fingerprint("gram"), session.spec, grid, blocks_kept(1)
    )
    done: list[TaskDone] = []

    def listen(progress: Progress) -> None:
        if isinstance(progress.event, TaskDone):
            done.append(progress.event)

    session.listener = listen
    session.run(tasks, work, "calibrate")
    session.listener = None
    return done


def _size(plan: Plan, rows: int) -> int:
    """The plan's tile, or a smaller one where that would take too long or there are too few rows."""
    tile = min(plan.grid.tile, rows // 2)
    while tile > SMALLEST_TILE and tile**2 * plan.rates.pair_seconds > ROUND_SECONDS:
        tile //= 2
    return tile
