"""All eigenvalues of a stored Gram matrix of any size by reduction to a band, out of core; chosen eigenvectors.

`pipeline.plan.band` says what the tasks are and what they pass on. The band fits into memory: its eigenvalues are
LAPACK's, eigenvectors come from inverse iteration on it and are carried back through the stored reflectors.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ntk.linalg import band_eigen, band_reduction, inertia
from ntk.linalg.band_reduction import Reflectors
from ntk.linalg.gates import Gate, eigenpair_gate, orthogonality_gate
from ntk.linalg.operator import symmetric_product
from pipeline.errors import InputError
from pipeline.plan.band import PANEL_KIND, SWEEP_KIND, BandPlan, band_tasks
from pipeline.plan.gram import gram_array
from pipeline.plan.memory_spectrum import band_width
from pipeline.plan.resources import Resources
from pipeline.plan.tasks import Record, Task
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    EIGENVALUES,
    EIGENVECTORS,
    Found,
    Request,
    all_values_note,
    make_spectrum_array,
    spectrum_array,
)
from pipeline.stages.tiles import AHEAD, ahead
from pipeline.stages.worker import Stopwatch, has_gpu, opened, stored_record, write_behind
from pipeline.store.arrays import ArrayStore
from pipeline.store.faults import TileError
from pipeline.store.scratch import PASSING

if TYPE_CHECKING:
    from ntk.linalg.tile_jax import DeviceSweep

VALUES_KIND, VECTORS_KIND = "band-values", "band-vectors"

TILES_HELD = AHEAD + 4
"""Tiles in the memory of a worker during a sweep."""

Block = np.ndarray


@dataclass(frozen=True, slots=True)
class BandWork:
    """One task of the reduction, or of what follows from the band; picklable."""

    directory: str
    token: str
    kernel: str
    plan: BandPlan
    count: int
    vectors: int
    trace: float
    frobenius: float
    threads: int

    def __call__(self, task: Task) -> list[Record]:
        step = {
            PANEL_KIND: self.panel,
            SWEEP_KIND: self.sweep,
            VALUES_KIND: self.values,
            VECTORS_KIND: self.eigenvectors,
        }[task.kind]
        return step(task)

    @property
    def store(self) -> ArrayStore:
        return opened(self.directory, self.token)

    def panel(self, task: Task) -> list[Record]:
        """The update of the panel before, this panel's rows brought up to date, and their QR factorisation."""
        watch = Stopwatch()
        (panel,) = task.args
        plan, rows = self.plan, self.plan.rows(panel)
        found: dict[str, Block] = {}
        strip = self.strip(panel, rows)
        if panel > 0:
            w = self.update_factor(panel - 1)
            v = self.view(plan.reflectors, panel - 1)
            band_reduction.rank_2b_update(strip, (v[rows], w[rows]), (v[rows.start :], w[rows.start :]))
            found[plan.updates] = w
            del v, w
        width = len(strip)
        band = np.zeros((plan.bandwidth, 2 * plan.bandwidth))
        band[:width, :width] = strip[:, :width]
        if panel < plan.panels - 1:
            q, r = band_reduction.panel_qr(strip[:, width:].T)
            del strip
            band[:width, plan.bandwidth : plan.bandwidth + len(r)] = r.T
            v = np.zeros((plan.grid.n, plan.bandwidth))
            v[rows.stop :, : q.v.shape[1]] = q.v
            t = np.zeros((plan.bandwidth, plan.bandwidth))
            t[: len(q.t), : len(q.t)] = q.t
            found |= {plan.reflectors: v, plan.triangles: t}
        found[plan.band] = band
        return [
            self.stored(name, key, found.pop(name)[None], watch, task)
            for name, key in task.writes
            if name in found
        ]

    def stored(self, name: str, key: tuple[int, ...], block: Block, watch: Stopwatch, task: Task) -> Record:
        """Write a chunk over one that nobody reads any more."""
        return stored_record(self.store, name, key, block, watch, task.key, spent=self.plan.over(name, key))

    def strip(self, panel: int, rows: slice) -> Block:
        """The rows of a panel of A_{k−1} (of K for the first panel), from the diagonal on, as a new array."""
        grid = self.plan.grid
        strip = np.empty((rows.stop - rows.start, grid.n - rows.start))
        for i in range(rows.start // grid.tile, -(-rows.stop // grid.tile)):
            inside = slice(max(rows.start, grid.rows(i).start), min(rows.stop, grid.rows(i).stop))
            for j in range(rows.start // grid.tile, grid.blocks):
                columns = slice(max(rows.start, grid.rows(j).start), grid.rows(j).stop)
                if j >= i:
                    tile, row, column = self.tile(panel - 1, i, j), inside, columns
                    part = tile[_within(row, grid.rows(i)), _within(column, grid.rows(j))]
                else:
                    tile = self.tile(panel - 1, j, i)
                    part = tile[_within(columns, grid.rows(j)), _within(inside, grid.rows(i))].T
                strip[_within(inside, rows), _within(columns, slice(rows.start, grid.n))] = part
        return strip

    def update_factor(self, panel: int) -> Block:
        """W of a panel from the shares of its product, in their order; zero above its rows."""
        plan, live = self.plan, slice(self.plan.rows(panel).stop, None)
        w = np.zeros((plan.grid.n, plan.bandwidth))
        for share in range(plan.shares):
            w[live] += self.store.view(plan.products, (panel, share, 0, 0))[0, 0][live]
        v = self.view(plan.reflectors, panel)[live]
        w[live] = band_reduction.update_factor(v, v @ self.view(plan.triangles, panel), w[live])
        return w

    def sweep(self, task: Task) -> list[Record]:
        """The tiles of a share brought from A_{k−1} to A_k, and their product with V_k T_k."""
        watch = Stopwatch()
        panel, share = task.args
        plan, grid = self.plan, self.plan.grid
        x = self.view(plan.reflectors, panel) @ self.view(plan.triangles, panel)
        before = None
        if panel > 0:
            before = self.view(plan.reflectors, panel - 1), self.view(plan.updates, panel)
        steps = sweep_steps()(x, before)
        del x
        first = plan.rows(panel).stop
        records: list[Record] = []
        tiles = ahead(self.fresh_tiles(panel - 1), plan.share(panel, share))
        with write_behind(
            self.store, task.key, records, _no_note, spent=functools.partial(plan.over, plan.matrix)
        ) as write:
            for (i, j), tile in tiles:
                at = Stopwatch()
                rows, columns = grid.rows(i), grid.rows(j)
                # Rows that belong to the panel or lie above it are left as they are. In columns X and V are zero there.
                live = slice(max(rows.start, first), rows.stop)
                steps.take(tile[_within(live, rows)], live, columns, diagonal=i == j)
                if before is not None:
                    write(plan.matrix, (panel, i, j), tile[None], at.started, at.seconds)
        records.append(
            self.stored(plan.products, (panel, share, 0, 0), steps.product()[None, None], watch, task)
        )
        return records

    def fresh_tiles(self, panel: int) -> Callable[[int, int], Block]:
        """Reads tiles of A_k into memory of their own, a few arrays in turn: `AHEAD` + 1 are being read or wait, one is
        being computed with, one waits to be written and one is being written."""
        turns = itertools.cycle([np.empty((self.plan.grid.tile,) * 2) for _ in range(TILES_HELD)])

        def read(i: int, j: int) -> Block:
            grid, whole = self.plan.grid, next(turns)
            tile = whole.reshape(-1)[: grid.size(i) * grid.size(j)].reshape(grid.size(i), grid.size(j))
            if panel <= 0:
                tile[...] = self.tile(panel, i, j)
            else:
                self.store.read_into(self.plan.matrix, (panel, i, j), tile[None])
            return tile

        return read

    def tile(self, panel: int, i: int, j: int) -> Block:
        """A tile of A_k; A_0 = K, of which A_{−1} is another name."""
        if panel <= 0:
            return self.store.view(gram_array(self.kernel), (i, j))
        return self.store.view(self.plan.matrix, (panel, i, j))[0]

    def view(self, name: str, panel: int) -> Block:
        """A panel's chunk of an array; of `updates`, W of the panel before."""
        return self.store.view(name, (panel, 0, 0))[0]

    def values(self, task: Task) -> list[Record]:
        """All eigenvalues, and how small the smallest is."""
        watch = Stopwatch()
        band = self.band()
        values = band_eigen.band_eigenvalues(band, threads=self.threads)
        note = all_values_note(values, self.trace, self.frobenius)
        shifts = inertia.shifts_between(values, len(values))
        off = inertia.worst_count(lambda shift: inertia.count_above_band(band, shift), shifts)
        if off is not None:
            note["gates"]["inertia"] = Gate(off, inertia.LIMIT).to_dict()
        ((name, key),) = task.writes
        return [stored_record(self.store, name, key, values[: self.count], watch, task.key, note)]

    def band(self) -> Block:
        """The band, ab[d, j] = B[j + d, j]."""
        plan = self.plan
        band = np.zeros((min(plan.bandwidth, plan.grid.n - 1) + 1, plan.grid.n))
        for panel in range(plan.panels):
            rows = plan.rows(panel)
            block, width = self.view(plan.band, panel), rows.stop - rows.start
            below = min(plan.bandwidth, plan.grid.n - rows.stop)
            r = block[:width, plan.bandwidth : plan.bandwidth + below].T
            band_reduction.put_panel(band, rows.start, block[:width, :width], r)
        return band

    def eigenvectors(self, task: Task) -> list[Record]:
        """The leading eigenvectors and their gates, from a second reading of the matrix."""
        watch = Stopwatch()
        plan, grid = self.plan, self.plan.grid
        values = self.store.read(spectrum_array(self.kernel, EIGENVALUES), (0,))
        largest, leading = float(np.max(np.abs(values))), values[: self.vectors]
        vectors = band_eigen.band_eigenvectors(self.band(), leading, norm=largest)
        for panel in reversed(range(plan.panels - 1)):
            start = plan.rows(panel).stop
            v, t = self.view(plan.reflectors, panel), self.view(plan.triangles, panel)
            width = min(plan.bandwidth, grid.n - start)
            band_reduction.apply(Reflectors(v[start:, :width], t[:width, :width]), vectors[start:])
        blocks = [grid.rows(block) for block in range(grid.blocks)]
        tiles = (((i, j), self.tile(0, i, j)) for i, j in grid.upper())
        products = symmetric_product(tiles, blocks, vectors)
        pairs = eigenpair_gate(products, leading, vectors, lambda_max=largest, dtype=np.float64)
        note = {
            "pairs": pairs.to_dict(),
            "orthogonality": orthogonality_gate(vectors, dtype=np.float64).to_dict(),
        }
        ((name, key),) = task.writes
        return [stored_record(self.store, name, key, np.ascontiguousarray(vectors), watch, task.key, note)]


@functools.cache
def sweep_steps() -> type[band_reduction.HostSweep] | type[DeviceSweep]:
    """What takes up the tiles of a sweep in this process: JAX where it has a GPU to itself, else BLAS."""
    if has_gpu():
        # Imported here alone: a worker without a GPU keeps its memory for tiles.
        from ntk.linalg.tile_jax import DeviceSweep

        return DeviceSweep
    return band_reduction.HostSweep


def _no_note(name: str, key: tuple[int, ...], block: Block) -> dict[str, Any]:
    del name, key, block
    return {}


def _within(part: slice, whole: slice) -> slice:
    """A range of rows counted from the start of another that holds it."""
    return slice(part.start - whole.start, part.stop - whole.start)


def decompose(session: Session, request: Request) -> Found:
    """Store the eigenvalues and leading eigenvectors of a kernel; intermediate arrays are removed as they are spent.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    kernel, count, vectors = request.kernel, request.count, request.vectors
    grid, token = session.grid, session.fingerprint("spectrum")
    names = {what: spectrum_array(kernel, what) for what in (EIGENVALUES, EIGENVECTORS)}
    width = band_width(grid.n, grid.tile, session.resources.memory)
    if width is None:
        raise InputError(
            "spectrum.method: band: no panel fits into a worker's memory",
            hint="allow a worker more memory in cluster.yaml",
        )
    plan = BandPlan(
        grid,
        width,
        session.resources.workers,
        f"{PASSING}/{kernel}-band",
        vectors > 0,
    )
    make_spectrum_array(session, request, EIGENVALUES, (count,))
    if vectors:
        make_spectrum_array(session, request, EIGENVECTORS, (grid.n, vectors))
    after = _closing_tasks(session, kernel, names, vectors)
    work = BandWork(
        str(session.directory),
        token,
        kernel,
        plan,
        count,
        vectors,
        request.trace,
        request.frobenius,
        idle_threads(session.resources),
    )
    try:
        if after:
            _reduce(session, request, plan, work)
            session.run(after, work, "spectrum")
    except TileError as error:
        if PASSING not in error.message:
            raise
        _remove(session, plan)
        raise TileError(error.message, hint="a rerun starts the reduction to a band again") from None
    _remove(session, plan)
    note = session.journal.records(names[EIGENVALUES])[(0,)].note
    residuals = session.journal.records(names[EIGENVECTORS])[0, 0].note if vectors else {}
    return Found(residuals | note["gates"], lambda_min=note["lambda_min"])


def _reduce(session: Session, request: Request, plan: BandPlan, work: BandWork) -> None:
    """Reduce to a band, from wherever a killed process left it."""
    # Cut otherwise (more workers, less memory) it is another reduction, which starts at its beginning.
    cut = f"{request.print_of(EIGENVALUES)}/{plan.bandwidth}/{plan.shares}/{plan.vectors}"
    for name, (shape, chunk) in plan.arrays.items():
        session.create(name, shape, chunk, fingerprint=cut)
    tasks = band_tasks(plan, session.journal.done(plan.arrays), f"spectrum/{work.kernel}")
    _drop(session, plan)
    session.run(tasks, work, "spectrum", after=lambda: _drop(session, plan))


def _remove(session: Session, plan: BandPlan) -> None:
    for name in plan.arrays:
        if session.store.exists(name):
            session.remove(name)


def _closing_tasks(session: Session, kernel: str, names: dict[str, str], vectors: int) -> list[Task]:
    """What is left to do once the band is there."""
    tasks: list[Task] = []
    if session.journal.latest(names[EIGENVALUES], (0,)) is None:
        chunk = (names[EIGENVALUES], (0,))
        tasks.append(Task(f"spectrum/{kernel}/values", VALUES_KIND, writes=(chunk,)))
    if vectors and session.journal.latest(names[EIGENVECTORS], (0, 0)) is None:
        chunk = (names[EIGENVECTORS], (0, 0))
        deps = tuple(task.key for task in tasks)
        tasks.append(Task(f"spectrum/{kernel}/vectors", VECTORS_KIND, deps=deps, writes=(chunk,)))
    return tasks


def idle_threads(resources: Resources) -> int:
    """Threads for a task beside which nothing runs: the cores of the other workers of one machine, where each computes
    with one thread (BLAS with threads of its own is not called from several at once)."""
    return resources.workers if resources.kind == "local" and resources.threads == 1 else 1


def _drop(session: Session, plan: BandPlan) -> None:
    """Forget what no task needs any more."""
    session.retire(plan.spent(session.journal.done(plan.arrays)))
