"""Band → narrower band, in memory: bandwidth b to d < b by blocks of d columns, each bulge chased to the end.

A sweep takes the columns [j, j + d): the QR factorisation of their b rows below the new band is applied from both sides
to the b rows and columns it touches; that fills a b × b block further down, whose first d columns are factored in turn,
and so on to the end of the matrix (Bischof, Lang & Sun 2000, algorithm 2). What fills beyond the first d columns is
left for the next sweep, so that no more than 2 b diagonals below the main one are ever occupied. About 6 n² b flops,
in matrix products of inner size d.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ntk.linalg.band_reduction import Matrix, Reflectors, panel_qr, rank_2b_update, update_factor


def narrow(band: NDArray[np.float64], bandwidth: int) -> NDArray[np.float64]:
    """The band of bandwidth d similar to that of bandwidth b.

    Args:
        band: ab[i, j] = A[j + i, j], (b + 1, n), not changed.
        bandwidth: d, 1 ≤ d ≤ b.

    Returns:
        (d + 1, n), in the same layout. Memory: 16 b n bytes besides.
    """
    b, n, d = len(band) - 1, band.shape[1], bandwidth
    if d >= b:
        return band.copy()
    # Columns of length 2b: rows i … of column j lie at i + j (2b − 1), so that every block below the diagonal is a
    # Fortran-ordered matrix in place.
    work = np.zeros((2 * b, n), order="F")
    work[: b + 1] = band
    for start in range(0, n - d, d):
        columns, first = slice(start, start + d), start + d
        while first < n:
            rows = slice(first, min(first + b, n))
            _eliminate(work, rows, columns, n)
            columns, first = slice(first, min(first + d, n)), rows.stop
    return np.asfortranarray(work[: d + 1])


def _eliminate(work: Matrix, rows: slice, columns: slice, n: int) -> None:
    """Make the block (rows, columns) upper triangular by reflections of `rows`, applied from both sides."""
    block = _block(work, rows, columns)
    q, r = panel_qr(block)
    block[:] = 0
    block[: len(r)] = r
    # From the left on what stands between the columns and the rows.
    between = slice(columns.stop, rows.start)
    if between.stop > between.start:
        _apply_transposed(q, _block(work, rows, between))
    square = _block(work, rows, rows)
    lower = _lower(len(square))
    # Above the main diagonal the view shows entries of other columns.
    diagonal = np.where(lower, square, square.T)
    x = q.v @ q.t
    w = update_factor(q.v, x, diagonal @ x)
    rank_2b_update(diagonal, (q.v, w), (q.v, w))
    np.copyto(square, diagonal, where=lower)
    below = slice(rows.stop, min(rows.stop + len(work) // 2, n))
    if below.stop > below.start:
        under = _block(work, below, rows)
        under -= (under @ x) @ q.v.T


def _apply_transposed(q: Reflectors, block: Matrix) -> None:
    """Z ← Qᵀ Z."""
    block -= q.v @ (q.t.T @ (q.v.T @ block))


def _block(work: Matrix, rows: slice, columns: slice) -> Matrix:
    """A view of a block that lies below the main diagonal."""
    shape = rows.stop - rows.start, columns.stop - columns.start
    item = work.itemsize
    origin = work[rows.start - columns.start :, columns.start :]
    return as_strided(origin, shape, (item, (len(work) - 1) * item))


@functools.lru_cache(maxsize=4)
def _lower(size: int) -> NDArray[np.bool_]:
    return np.asfortranarray(np.tri(size, dtype=bool))
