"""How the spectrum of a run will be found: the method, what it costs and what a worker needs, before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.model import SpectrumConfig
from pipeline.config.sizes import human_bytes
from pipeline.errors import InputError
from pipeline.plan import memory, memory_solve, memory_spectrum
from pipeline.plan.band import BandPlan
from pipeline.plan.kept import kept_tiles
from pipeline.plan.memory import Need
from pipeline.plan.products import Patches
from pipeline.plan.resources import Resources
from pipeline.plan.tiles import TileGrid

BAND_ROWS = 50_000
"""`auto` finds all eigenvalues of a matrix that does not fit into memory up to this many rows (4/3 n³ flops, 1.7e14
there); beyond, their density."""

FEW = 0.1
"""`auto` takes `count` for few, and finds these alone, up to this share of the rows."""

SMALL = 8192
"""`auto` finds few eigenpairs by `eigh` up to so many rows: 9 n³ = 5e12 flops, minutes on one thread. At 50,000 rows it
would take hours where `lanczos` takes minutes."""

GUARD = 0.5
"""Width of the blocks of the block Krylov method beyond `count`, as a share of it: modes that need not converge, so
that the wanted ones do."""

LEAST_GUARD = 16

THIN, THIN_COST = 32, 2.5
"""A product with so few vectors costs so many times what its operations do in a square one: BLAS packs a strip of the
matrix for some rows only."""

EXPECTED_PASSES = 12
"""Passes over the matrix that leading pairs of a kernel matrix take, for the plan."""


KRYLOV_BLOCKS = 12
"""Blocks in the basis of a Krylov iteration before it is compressed to its leading Ritz vectors."""


COUNTED_ROWS = 8192
"""A count by LDLᵀ takes one worker n³/3 flops: up to so many rows seconds, beside the passes hardly more."""

INVERSE_STEPS = 20
"""Solves with a block that the smallest eigenpairs may take."""


@dataclass(frozen=True, slots=True)
class SpectrumPlan:
    """The chosen method for every kernel of a run.

    Attributes:
        method: eigh, band, lanczos, density, or none when nothing fits.
        tasks: tasks that workers get.
        passes: readings of a stored matrix (half of it, its upper tiles).
        flops, reads, writes: of all kernels.
        need: peak of a worker, or of the process that directs them where that is more.
        skipped: why nothing will be done.
        kept: tiles of a matrix that all workers together keep from one product to the next; None where files are
            mapped, or no products are made.
        serial: operations of one process for which all others wait.
    """

    method: str
    tasks: int
    passes: float
    flops: float
    reads: float
    writes: float
    need: Need
    skipped: str = ""
    kept: int | None = None
    serial: float = 0.0


@dataclass(frozen=True, slots=True)
class Matrix:
    """The stored matrices: tiles, bytes of an entry, how many there are, whether tiles are pages of files."""

    grid: TileGrid
    itemsize: int
    kernels: int
    mapped: bool = True

    @property
    def bytes(self) -> float:
        return self.kernels * self.itemsize * self.grid.n * (self.grid.n + 1) / 2


def block_width(count: int, n: int) -> int:
    """Vectors in a block when `count` leading pairs of n are wanted."""
    return min(n, count + max(LEAST_GUARD, int(GUARD * count)))


def resolve_method(wanted: SpectrumConfig, matrix: Matrix, resources: Resources) -> SpectrumPlan:
    """The method that will be used, and its plan.

    Raises:
        InputError: a method was asked for by name and does not fit into a worker's memory.
    """
    for name in _candidates(wanted, matrix.grid.n):
        plan = _with_smallest(PLANS[name](wanted, matrix, resources), wanted, matrix)
        if plan.need.total <= resources.memory:
            return plan
        if wanted.method != "auto":
            raise InputError(
                f"spectrum.method: {name}: {_too_large(plan.need, resources)}",
                hint="allow a worker more memory in cluster.yaml, or set spectrum.method to auto or none",
            )
        smallest = plan
    return SpectrumPlan("none", 0, 0, 0, 0, 0, smallest.need, _too_large(smallest.need, resources))


def _with_smallest(plan: SpectrumPlan, wanted: SpectrumConfig, matrix: Matrix) -> SpectrumPlan:
    """What the smallest eigenpairs add: n³/3 flops of a factorisation, whose tile (i, j) reads 2 i tiles, then a few
    readings of the factor by one worker."""
    if not wanted.smallest:
        return plan
    grid, n = matrix.grid, float(matrix.grid.n)
    width = block_width(min(wanted.smallest, grid.n), grid.n)
    factor = 4 * n * (n + 1)
    above = 8.0 * grid.tile**2 * grid.blocks * (grid.blocks + 1) * (grid.blocks + 2) / 3
    needs = (
        plan.need,
        memory_solve.cholesky_task(grid.tile),
        memory_spectrum.inverse_krylov(grid.n, width, INVERSE_STEPS, grid.tile),
    )
    return dataclasses.replace(
        plan,
        tasks=plan.tasks + matrix.kernels * (grid.count + 1),
        flops=plan.flops + matrix.kernels * (n**3 / 3 + 2 * n * n * width * INVERSE_STEPS),
        reads=plan.reads + 2 * matrix.bytes + matrix.kernels * (above + INVERSE_STEPS * factor),
        writes=plan.writes + matrix.kernels * factor,
        need=max(needs, key=lambda need: need.total),
    )


def _candidates(wanted: SpectrumConfig, n: int) -> tuple[str, ...]:
    """The methods that give what is wanted: all eigenpairs first, unless few are wanted of many."""
    if wanted.method != "auto":
        return (wanted.method,)
    if wanted.count != "all" and wanted.count <= FEW * n:
        return ("eigh", "lanczos") if n <= SMALL else ("lanczos", "eigh")
    return ("eigh", "band", "density") if n <= BAND_ROWS else ("eigh", "density")


def _too_large(need: Need, resources: Resources) -> str:
    return (
        f"a worker would need {human_bytes(need.total)} ({need}), it may use {human_bytes(resources.memory)}"
    )


def _eigh(wanted: SpectrumConfig, matrix: Matrix, resources: Resources) -> SpectrumPlan:
    need = memory_spectrum.full_eigh(matrix.grid.n, process=memory.PROCESS_WITH_JAX)
    flops = matrix.kernels * 9.0 * float(matrix.grid.n) ** 3
    return SpectrumPlan("eigh", matrix.kernels, 2, flops, 2 * matrix.bytes, 0.0, need)


def _band(wanted: SpectrumConfig, matrix: Matrix, resources: Resources) -> SpectrumPlan:
    n, tile = matrix.grid.n, matrix.grid.tile
    width = memory_spectrum.band_width(n, tile, resources.memory) or memory_spectrum.LEAST_BANDWIDTH
    plan = BandPlan(matrix.grid, width, resources.workers, "", wanted.vectors > 0)
    passes = plan.panels / 3 + 2
    flops = matrix.kernels * (4 / 3 * float(n) ** 3 + 6.0 * n * n * width)
    panels = matrix.kernels * 8.0 * n * width * plan.panels * 6
    return SpectrumPlan(
        "band",
        matrix.kernels * (plan.panels * (1 + plan.shares) + 2),
        passes,
        flops,
        passes * matrix.bytes * 8 / matrix.itemsize + panels,
        plan.panels / 3 * matrix.bytes * 8 / matrix.itemsize + panels,
        memory_spectrum.band_task(n, tile, width),
    )


def _lanczos(wanted: SpectrumConfig, matrix: Matrix, resources: Resources) -> SpectrumPlan:
    n = matrix.grid.n
    count = n if wanted.count == "all" else min(wanted.count, n)
    width = block_width(count, n)
    driver = memory_spectrum.krylov_driver(n, width, KRYLOV_BLOCKS)
    plan = _products("lanczos", matrix, width, EXPECTED_PASSES, driver, resources)
    if not is_counted(n, resources.memory):
        return plan
    return dataclasses.replace(
        plan,
        tasks=plan.tasks + matrix.kernels,
        # One task; Bunch and Kaufman's pivoting runs at half the rate of a product.
        serial=plan.serial + matrix.kernels * 2 * float(n) ** 3 / 3,
        reads=plan.reads + matrix.bytes,
        need=max(plan.need, memory_spectrum.inertia_task(n), key=lambda need: need.total),
    )


def is_counted(n: int, limit: int) -> bool:
    """Whether a worker has the memory, and the time, to count eigenvalues by LDLᵀ of the whole matrix."""
    return n <= COUNTED_ROWS and memory_spectrum.inertia_task(n).total <= limit


def _density(wanted: SpectrumConfig, matrix: Matrix, resources: Resources) -> SpectrumPlan:
    n, probes = matrix.grid.n, wanted.probes
    steps = min(wanted.steps, n)
    return _products(
        "density", matrix, probes, steps, memory_spectrum.quadrature_driver(n, probes, steps), resources
    )


def _products(
    method: str, matrix: Matrix, columns: int, passes: int, driver: Need, resources: Resources
) -> SpectrumPlan:
    """`passes` products with `columns` vectors; `driver` is what the process that directs them needs."""
    n, patches = matrix.grid.n, Patches.of(matrix.grid, matrix.itemsize)
    vectors = matrix.kernels * 8.0 * n * columns * passes
    worker = memory_solve.product_task(
        matrix.grid.tile, patches.rows_per_side, columns, itemsize=matrix.itemsize
    )
    count, kept, still = matrix.grid.count, None, 1.0
    if not matrix.mapped:
        keep = kept_tiles(matrix.grid, matrix.itemsize, worker.total, resources)
        kept = min(count, resources.workers * keep)
        still = 1 - kept / count * (1 - 1 / passes)
        worker = Need((*worker.parts, ("tiles kept", keep * matrix.grid.tile**2 * matrix.itemsize)))
    return SpectrumPlan(
        method,
        matrix.kernels * passes * (patches.sides * (patches.sides + 1) // 2),
        passes,
        matrix.kernels * passes * 2.0 * n * n * columns * (THIN_COST if columns <= THIN else 1.0),
        passes * matrix.bytes * still + vectors * passes,
        vectors * patches.sides,
        max(worker, driver, key=lambda need: need.total),
        kept=kept,
        # Twice orthogonal to all blocks before.
        serial=matrix.kernels * 4.0 * n * columns**2 * passes**2,
    )


PLANS: dict[str, Callable[[SpectrumConfig, Matrix, Resources], SpectrumPlan]] = {
    "eigh": _eigh,
    "band": _band,
    "lanczos": _lanczos,
    "density": _density,
}
