"""Cholesky factor of a matrix in memory, and the inverse of the factor, in its place.

A matrix of up to `LAPACK_ROWS` is potrf's and trtri's as a whole. Beyond, only blocks on the diagonal are: with two
threads and AVX-512, OpenBLAS 0.3.31 writes beyond its buffers in potrf from about 15,500 rows on, and ends the process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.tile_cholesky import (
    NotPositiveDefinite,
    Tile,
    factor,
    factor_upper,
    invert_upper,
    solve_row,
)

LAPACK_ROWS = 8192
BLOCK = 2048
"""Rows and columns of a block of a larger matrix; four of them are at hand beside it."""


def factor_in_place(matrix: Tile, *, whole: int = LAPACK_ROWS, block: int = BLOCK) -> None:
    """U with A = UᵀU in the upper triangle of A; left-looking, a block of rows at a time.

    Args:
        matrix: A, (n, n) float32 or float64, C-contiguous. What is below the diagonal, which must be zero, stays so.
        whole: most rows to leave to LAPACK.
        block: rows and columns of a block of a larger matrix.

    Raises:
        NotPositiveDefinite: its pivot counted in the matrix, which is then half overwritten.
    """
    if len(matrix) <= whole:
        factor_upper(matrix)
        return
    blocks = _blocks(len(matrix), block)
    for i, rows in enumerate(blocks):
        above, root = matrix[: rows.start, rows].T, matrix[rows, rows]
        for columns in blocks[i:]:
            corner = matrix[rows, columns]
            corner -= above @ matrix[: rows.start, columns]
            if columns != rows:
                corner[:] = solve_row(root, np.ascontiguousarray(corner))
                continue
            try:
                corner[:] = root = factor(np.ascontiguousarray(corner))
            except NotPositiveDefinite as failure:
                raise failure.within(rows) from None


def invert_in_place(upper: Tile, *, whole: int = LAPACK_ROWS, block: int = BLOCK) -> None:
    """U⁻¹ in the place of a nonsingular U as `factor_in_place` leaves it: X_ii = U_ii⁻¹ and
    X_ij = −X_ii Σ_{i<k≤j} U_ik X_kj, from the last block of rows to the first and from right to left in each."""
    if len(upper) <= whole:
        invert_upper(upper)
        return
    blocks = _blocks(len(upper), block)
    for i, rows in reversed(list(enumerate(blocks))):
        corner = np.ascontiguousarray(upper[rows, rows])
        invert_upper(corner)
        for columns in reversed(blocks[i + 1 :]):
            between = slice(rows.stop, columns.stop)
            np.negative(corner @ (upper[rows, between] @ upper[between, columns]), out=upper[rows, columns])
        upper[rows, rows] = corner


def _blocks(n: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, n)) for start in range(0, n, block)]


def squared_lines(matrix: NDArray[np.floating], rows: slice) -> NDArray[np.float64]:
    """Σ_j X_ij² of some rows, in float64: the diagonal of A⁻¹ = U⁻¹ U⁻ᵀ for X = U⁻¹."""
    return np.einsum("ij,ij->i", matrix[rows], matrix[rows], dtype=np.float64)
