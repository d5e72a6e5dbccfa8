"""Solving with a stored factor A = UᵀU, one tile in memory at a time.

``factor_tile(i, j)`` returns the upper tile U_ij, i ≤ j, and is called once per tile and pass, row by row:
ascending in `forward` and `inverse_diagonal_block`, descending in `backward`, so that a reader can run ahead.
The vectors stay in memory. Arithmetic is in the dtype of the vectors; a tile of another dtype is converted
(one tile of extra memory), so that a float32 factor can be applied to float64 residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.tile_cholesky import Tile, solve_column, solve_row, update

FactorTile = Callable[[int, int], Tile]


def forward(factor_tile: FactorTile, blocks: Sequence[slice], rhs: NDArray) -> NDArray:
    """U^{-T} B, for B of shape (n,) or (n, r), float32 or float64; the result has its shape and dtype."""
    z = _columns(rhs, blocks)
    for i, rows in enumerate(blocks):
        solve_row(_like(factor_tile(i, i), z), z[rows])
        for j in range(i + 1, len(blocks)):
            update(z[blocks[j]], _like(factor_tile(i, j), z), z[rows])
    return z.reshape(rhs.shape)


def backward(factor_tile: FactorTile, blocks: Sequence[slice], rhs: NDArray) -> NDArray:
    """U^{-1} B, for B of shape (n,) or (n, r), float32 or float64; the result has its shape and dtype."""
    x = _columns(rhs, blocks)
    for i in reversed(range(len(blocks))):
        rows = blocks[i]
        for j in reversed(range(i + 1, len(blocks))):
            update(x[rows], _like(factor_tile(i, j), x).T, x[blocks[j]])
        solve_column(_like(factor_tile(i, i), x), x[rows])
    return x.reshape(rhs.shape)


def solve(factor_tile: FactorTile, blocks: Sequence[slice], rhs: NDArray) -> NDArray:
    """A^{-1} B = U^{-1} (U^{-T} B), for B of shape (n,) or (n, r): two passes over the factor."""
    return backward(factor_tile, blocks, forward(factor_tile, blocks, rhs))


def factor_product(factor_tile: FactorTile, blocks: Sequence[slice], vectors: NDArray) -> NDArray:
    """Uᵀ(U X), for X of shape (n,) or (n, r): what the factor makes of A X. Each tile is read twice."""
    x = _columns(vectors, blocks)
    y = np.zeros_like(x)
    for i, rows in enumerate(blocks):
        z = np.zeros_like(x[rows])
        for j in range(i, len(blocks)):
            z += _like(factor_tile(i, j), x) @ x[blocks[j]]
        for j in range(i, len(blocks)):
            y[blocks[j]] += _like(factor_tile(i, j), x).T @ z
    return y.reshape(vectors.shape)


def inverse_diagonal_block(factor_tile: FactorTile, blocks: Sequence[slice], j: int) -> NDArray[np.float64]:
    """The diagonal of A^{-1} on block j, from one pass over the rows j, j + 1, … of the factor.

    (A^{-1})_cc = ‖U^{-T} e_c‖², and U^{-T} e_c is zero above block j. All columns of the block go together;
    they hold a panel of (n − blocks[j].start) × len(block j) numbers of the factor's dtype.

    Returns:
        (len of block j,) float64, positive.
    """
    start = blocks[j].start
    width = blocks[j].stop - start
    corner = factor_tile(j, j)
    panel = np.zeros((blocks[-1].stop - start, width), corner.dtype)
    np.fill_diagonal(panel, 1)
    diagonal = np.zeros(width)
    for i in range(j, len(blocks)):
        rows = panel[blocks[i].start - start : blocks[i].stop - start]
        solve_row(corner if i == j else factor_tile(i, i), rows)
        diagonal += np.einsum("ij,ij->j", rows, rows, dtype=np.float64)
        for k in range(i + 1, len(blocks)):
            update(panel[blocks[k].start - start : blocks[k].stop - start], factor_tile(i, k), rows)
    return diagonal


def _columns(vectors: NDArray, blocks: Sequence[slice]) -> NDArray:
    """A C-ordered copy of shape (n, r), whose row blocks are contiguous and can be updated in place."""
    n = blocks[-1].stop
    if vectors.shape[0] != n:
        raise ValueError(f"the factor has {n} rows, the vectors have {vectors.shape[0]}")
    return np.array(vectors.reshape(n, -1), order="C")


def _like(tile: Tile, vectors: NDArray) -> Tile:
    return tile.astype(vectors.dtype, copy=False)
