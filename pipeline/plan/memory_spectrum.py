"""Peak memory of the tasks of spectra (see `pipeline.plan.memory`)."""

from __future__ import annotations

import math

from pipeline.plan.memory import PROCESS, PROCESS_WITH_JAX, Need

BANDWIDTH = 128
"""Panel of a reduction to a band: wide enough for matrix products to run at their speed, narrow enough that the panels
and the band, which one worker factors and narrows, stay a small part (6 n² b flops each)."""

WIDE_BANDWIDTH = 256
"""Panel for matrices so large that reading and writing what is left of them, once a panel, is what costs."""

WIDE_ROWS = 32_768
"""Rows from which two generations of a matrix, 8 n² bytes, are not expected to stay in a machine's page cache."""

LEAST_BANDWIDTH = 32


def full_eigh(n: int, *, itemsize: int = 8, process: int = PROCESS) -> Need:
    """All eigenpairs of a dense n×n matrix by ``numpy.linalg.eigh`` (LAPACK's divide and conquer): the matrix, the copy
    that LAPACK overwrites, the vectors and 2·n² of work space; 5·n² items."""
    square = n * n * itemsize
    return Need((
        ("process", process),
        ("matrix", square),
        ("copy", square),
        ("eigenvectors", square),
        ("work space", 2 * square),
    ))  # fmt: skip


def band_task(n: int, tile: int, width: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """One task of the reduction to a band of width b. A panel holds at most 7 blocks of n·b (its rows, their copy that
    is factored, the factors V, W of the panel before, X or Y, one temporary, and the copy that is being encoded), as do
    the eigenvalues of the band (5 n·b while it is narrowed) and the inverse iteration on it (7 n·b); a sweep holds 5 of
    them and 8 tiles (three read ahead, the new one, two being written and two copies that are encoded)."""
    return Need((
        ("process", process),
        ("blocks of a panel", 7 * n * width * 8),
        ("tiles", 8 * tile * tile * 8),
    ))  # fmt: skip


def krylov_driver(n: int, width: int, blocks: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """The process that directs a block Krylov iteration with blocks of w vectors: 9·n·w·8 (the block, its product, what
    is left of it, a block of the basis and its part, the factors of a QR decomposition, partial sums), and the
    projected matrix of order m = blocks·w with its eigenvectors and working space of LAPACK, 5·m²·8."""
    order = min(n, blocks * width)
    return Need((
        ("process", process),
        ("blocks of vectors", 9 * n * width * 8),
        ("projected matrix", 5 * order * order * 8),
    ))  # fmt: skip


def inverse_krylov(n: int, width: int, steps: int, tile: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """Block Lanczos on the inverse in one worker: a basis of n·w·steps·8, what a step of it needs besides (see
    `krylov_driver`), and three tiles of the factor."""
    driver = krylov_driver(n, width, steps, process=process)
    return Need((
        *driver.parts,
        ("basis", n * min(n, width * steps) * 8),
        ("tiles being read", 3 * tile * tile * 8),
    ))  # fmt: skip


def inertia_task(n: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """LDLᵀ of a dense n×n matrix in its place, with blocks of 64 columns (LAPACK's): (n + 64)·n·8."""
    return Need((("process", process), ("matrix", n * n * 8), ("columns", 64 * n * 8)))


def quadrature_driver(n: int, probes: int, steps: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """The process that directs a Lanczos quadrature: 8·n·probes·8 for vectors, and the eigenvectors of one tridiagonal
    matrix with LAPACK's working space, 3·steps²·8."""
    return Need((
        ("process", process),
        ("vectors", 8 * n * probes * 8),
        ("tridiagonal matrix", 3 * steps * steps * 8),
    ))  # fmt: skip


def band_width(n: int, tile: int, limit: int, *, process: int = PROCESS_WITH_JAX) -> int | None:
    """The widest band, a multiple of 32 up to `BANDWIDTH` or `WIDE_BANDWIDTH`, whose reduction stays within
    `limit`; None when none does."""
    widths = range(BANDWIDTH if n < WIDE_ROWS else WIDE_BANDWIDTH, 0, -LEAST_BANDWIDTH)
    return next((b for b in widths if band_task(n, tile, b, process=process).total <= limit), None)


POPULATION_ROWS = 2048
"""Most rows of a Gram matrix from which a learning curve is predicted and measured, whole and in memory."""

LEAST_POPULATION = 20
"""Fewer rows than these have no learning curve worth the name."""


def population(rows: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """A sample of the rows with all its eigenpairs, then the inverse for held-out errors: 9·rows² items at most.

    The sample, its eigenvectors, and LAPACK's copy and 2·rows² of working space; what is freed between the steps is
    not all given back to the system.
    """
    square = 8 * rows * rows
    return Need((("process", process), ("sample of the matrix", square), ("factorisations", 8 * square)))


def population_rows(n: int, limit: int) -> int:
    """How many of n rows the sample has under a limit on memory; 0 when it would be too few."""
    process = population(0).total
    fitting = math.isqrt(max(limit - process, 0) // (population(1).total - process))
    rows = min(n, POPULATION_ROWS, fitting)
    return rows if rows >= LEAST_POPULATION else 0
