"""Peak memory of a worker, projected from the plan before anything runs, and the refusal when it cannot fit.

Every formula counts what is alive at the worst moment of one task of its kind, in bytes, by part, so that a
refusal can name the worst one. Storing a block costs as much again while it is encoded (crc32c is appended to
a copy), and so does reading one (file bytes beside the decoded block).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.config.sizes import human_bytes
from pipeline.errors import InputError

MB = 10**6
# Resident memory of a process that holds no data, measured on Linux x86-64: 87 MB with numpy, scipy, zarr and
# distributed imported, 265-330 MB with JAX 0.12 besides and some kernels compiled for the CPU. Rounded up by a
# quarter for a running worker's threads, journal and allocator.
PROCESS = 110 * MB
PROCESS_WITH_JAX = 400 * MB

TILE_MULTIPLE = 64

BANDWIDTH = 128
"""Panel of a reduction to a band: wide enough for matrix products to run at their speed, narrow enough that the panels
and the band, which one worker factors and narrows, stay a small part (6 n² b flops each)."""

WIDE_BANDWIDTH = 256
"""Panel for matrices so large that reading and writing what is left of them, once a panel, is what costs."""

WIDE_ROWS = 32_768
"""Rows from which two generations of a matrix, 8 n² bytes, are not expected to stay in a machine's page cache."""

LEAST_BANDWIDTH = 32

DENSE_ROWS, DENSE_BLOCK = 8192, 2048
"""Rows from which a matrix in memory is factored by blocks, and their size (`ntk.linalg.dense_cholesky`)."""


@dataclass(frozen=True, slots=True)
class Need:
    """Peak bytes of one worker while it does one task of a kind, by part."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        return sum(size for _, size in self.parts)

    @property
    def largest(self) -> str:
        """Name of the greatest part."""
        return max(self.parts, key=lambda part: part[1])[0]

    def __str__(self) -> str:
        parts = sorted(self.parts, key=lambda part: -part[1])
        return ", ".join(f"{name} {human_bytes(size)}" for name, size in parts if size)


def gram_task(
    tile: int,
    *,
    row_size: int,
    rows_kept: int,
    bytes_per_pair: float,
    most_bytes: float = math.inf,
    outputs: int = 1,
    itemsize: int = 8,
    queue: int = 2,
    process: int = PROCESS_WITH_JAX,
) -> Need:
    """One b×b tile of the Gram matrix.

    process + kept·row·item (blocks of inputs, as stored) + 4·b·row·8 (two of them padded, in the kernel's precision and
    in float64) + b²·(temporaries of the kernel)
    + 2·outputs·b²·item (results on the device and on the host) + queue·2·b²·item (blocks waiting to be
    written, each with its encoded copy).

    Args:
        tile: b.
        row_size: numbers in one input.
        rows_kept: rows of inputs that stay in memory for the tiles to come.
        bytes_per_pair: temporaries of the kernel for one entry (``ntk.analytic.cost``).
        most_bytes: of temporaries, where the kernel takes the entries in blocks.
        outputs: kernels wanted of each tile (ntk, nngp).
        itemsize: bytes of a stored entry.
        queue: blocks that wait for the writer at most.
        process: bytes of the process without data.
    """
    block = tile * tile * itemsize
    return Need((
        ("process", process),
        ("inputs", row_size * (rows_kept * itemsize + 4 * tile * 8)),
        ("kernel temporaries", int(min(tile * tile * bytes_per_pair, most_bytes))),
        ("results", 2 * outputs * block),
        ("blocks being written", 2 * queue * block),
    ))  # fmt: skip


def cholesky_task(tile: int, *, itemsize: int = 8, process: int = PROCESS) -> Need:
    """One tile of the factor, 8·b²·item: the tile and the Gram tile it starts from, the pages of two pairs of operands,
    and the tile before, which is being written, with its encoded copy."""
    block = tile * tile * itemsize
    return Need((
        ("process", process),
        ("tile and Gram tile", 2 * block),
        ("operands", 4 * block),
        ("block being written", 2 * block),
    ))  # fmt: skip


def substitution_task(n: int, columns: int, tile: int, *, itemsize: int = 8, process: int = PROCESS) -> Need:
    """(K + λI) α = Y: three tiles being read, two of them converted, beside nine sets of n·(columns + 8) numbers, the
    vectors of the refinement: eight columns probe the factor or the diagonal of its inverse."""
    return Need((
        ("process", process),
        ("tiles being read", 3 * tile * tile * itemsize),
        ("right-hand sides", 9 * n * (columns + 8) * itemsize),
    ))  # fmt: skip


def dense_solve_task(n: int, columns: int, tile: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """A ridge with the whole matrix in memory, n²·8, whose place factor and then inverse take; beside it blocks of it
    and what `substitution_task` holds."""
    return Need((
        ("matrix", n * n * 8),
        ("blocks", 4 * DENSE_BLOCK**2 * 8 if n > DENSE_ROWS else 0),
        *substitution_task(n, columns, tile, process=process).parts,
    ))  # fmt: skip


def inverse_diagonal_task(
    n: int, tile: int, *, width: int | None = None, itemsize: int = 8, process: int = PROCESS
) -> Need:
    """diag A⁻¹ of one block: n·w·item for Y (w columns at a time, the whole block by default), the corner tile and the
    one being read, 2·b²·item, and two b×w temporaries."""
    width = tile if width is None else width
    return Need((
        ("process", process),
        ("columns of the inverse factor", n * width * itemsize),
        ("tiles being read", 2 * tile * tile * itemsize),
        ("temporaries", 2 * tile * width * itemsize),
    ))  # fmt: skip


def prediction_task(
    tile: int,
    *,
    row_bytes: int,
    bytes_per_pair: float,
    n: int,
    most_bytes: float = math.inf,
    columns: int,
    itemsize: int = 8,
    process: int = PROCESS_WITH_JAX,
) -> Need:
    """One block of test rows against all n training rows, a b×b tile at a time: the tile of K(test, train) as
    in ``gram_task`` (nothing of it is stored), α (n·columns·item, columns of all ridges together) and the
    block's sums (2·b·columns·item)."""
    return Need((
        ("process", process),
        ("inputs", 4 * tile * row_bytes),
        ("kernel temporaries", int(min(tile * tile * bytes_per_pair, most_bytes))),
        ("tile", 2 * tile * tile * itemsize),
        ("coefficients", n * columns * itemsize),
        ("sums", 2 * tile * columns * itemsize),
    ))  # fmt: skip


def product_task(
    tile: int,
    patch_rows: int,
    columns: int,
    *,
    itemsize: int = 8,
    held: int = 4,
    strip: int = 1 << 20,
    process: int = PROCESS_WITH_JAX,
) -> Need:
    """One patch of K V: vectors and partial sums of its two sides with one temporary of each, 6·rows·columns·8; a strip
    of a tile in float64 and its products; the tiles at hand, read ahead and being dropped (held·b²·item; pages of the
    store's files, which the system may take back, counted all the same)."""
    return Need((
        ("process", process),
        ("vectors and sums", 6 * patch_rows * columns * 8),
        ("tiles at hand", held * tile * tile * itemsize),
        ("strips", 2 * strip),
    ))  # fmt: skip


def rows_product_task(
    tile: int,
    patch_rows: int,
    block: int,
    columns: int,
    *,
    row_size: int,
    bytes_per_pair: float,
    most_bytes: float = math.inf,
    itemsize: int = 8,
    process: int = PROCESS_WITH_JAX,
) -> Need:
    """Rows of K, computed against one side of the patches: inputs of the rows and of three blocks with their padded
    copies, the kernel's temporaries and twice its result in float64, vectors of the side, and b·(b + columns) sums."""
    entries = block * tile
    return Need((
        ("process", process),
        ("inputs", row_size * (2 * block + 5 * tile) * 8),
        ("kernel temporaries", int(min(tile * tile * bytes_per_pair, most_bytes))),
        ("rows", entries * (itemsize + 2 * 8)),
        ("vectors", 2 * patch_rows * columns * 8),
        ("sums", 3 * block * (block + columns) * 8),
    ))  # fmt: skip


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


def largest_tile(
    limit: int, need: Callable[[int], Need], *, multiple: int = TILE_MULTIPLE, most: int | None = None
) -> int | None:
    """The largest multiple of ``multiple`` at which ``need(tile)`` stays within ``limit``.

    Args:
        limit: bytes allowed for a worker.
        need: peak of a worker as a function of the tile, not decreasing.
        multiple: step, 64 by default: what BLAS, XLA and a GPU block like.
        most: no tile above this, rounded up to the step (N, say); without it the search ends at 65,536.

    Returns:
        The tile, or None when not even the smallest fits.
    """
    steps = max(1, -(-(65_536 if most is None else most) // multiple))
    low, high = 0, steps  # low steps fit, high + 1 do not (or are not wanted)
    while low < high:
        middle = (low + high + 1) // 2
        if need(middle * multiple).total <= limit:
            low = middle
        else:
            high = middle - 1
    return low * multiple or None


def require_fits(
    name: str,
    need: Need,
    limit: int,
    *,
    tile: int | None = None,
    need_of_tile: Callable[[int], Need] | None = None,
) -> None:
    """Refuse what cannot fit, before any work.

    Args:
        name: what needs it, as ``gram task``.
        need: its projected peak.
        limit: bytes allowed for a worker.
        tile: the tile in use, for the message.
        need_of_tile: the peak as a function of the tile, to propose one that fits.

    Raises:
        InputError: need exceeds limit; names the greatest part, all parts and a tile size that would fit.
    """
    if need.total <= limit:
        return
    at = f" with tile {tile}" if tile else ""
    fitting = largest_tile(limit, need_of_tile, most=tile) if need_of_tile else None
    remedy = f"allow at least {human_bytes(need.total)} per worker"
    if fitting:
        remedy = f"set gram.tile to {fitting} (or less), or {remedy}"
    elif need_of_tile is not None:
        remedy = f"no tile fits; {remedy}"
    raise InputError(
        f"{name}{at}: a worker would need {human_bytes(need.total)}, the limit is {human_bytes(limit)}; "
        f"most of it is {need.largest} ({need})",
        hint=remedy,
    )


FLOW_STEPS = 300
"""Lanczos steps, each a pass over the matrix, that predictions at training times may take."""


def flow(n: int, columns: int, times: int, *, process: int = PROCESS_WITH_JAX) -> Need:
    """Gradient flow by Lanczos steps, in the process that drives the workers: basis 8·n·columns·steps, the
    coefficients of every time twice, and six vectors a column in a step, 8·n·columns each."""
    vectors = 8 * n * columns
    return Need((
        ("process", process),
        ("basis", vectors * min(FLOW_STEPS, n)),
        ("coefficients", 2 * times * vectors),
        ("vectors", 6 * vectors),
    ))  # fmt: skip


def dense_regression(n: int, kernels: int) -> Need:
    """Kernel regression in one process, every matrix whole.

    process + kernels · 8n² + 4 · 8n² (the one that is inverted as it is checked, regularised and factored, and one
    temporary).
    """
    matrix = 8 * n * n
    return Need((("process", PROCESS_WITH_JAX), ("kernels", kernels * matrix), ("factorisation", 4 * matrix)))
