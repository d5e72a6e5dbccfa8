"""Peak memory of the tasks that solve and predict (see `pipeline.plan.memory`)."""

from __future__ import annotations

import math

from pipeline.plan.memory import PROCESS, PROCESS_WITH_JAX, Need

DENSE_ROWS, DENSE_BLOCK = 8192, 2048
"""Rows from which a matrix in memory is factored by blocks, and their size (`ntk.linalg.dense_cholesky`)."""


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
