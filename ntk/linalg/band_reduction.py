"""Full → band: a symmetric matrix reduced to bandwidth b by orthogonal similarity, one panel of b columns at a time.

Panel k holds the columns [s, s + b), s = k b, of the matrix A that is left. With P its part below row s + b,

    P = Q [R; 0],   Q = I − V T Vᵀ                     `panel_qr`        (compact WY: Schreiber & Van Loan 1989)
    X = V T,   Y = A X,   W = Y − ½ V (Xᵀ Y)           `update_factor`
    A ← Qᵀ A Q = A − V Wᵀ − W Vᵀ                       `rank_2b_update`

The band then holds the diagonal block of the panel and R below it (Dongarra, Sorensen & Hammarling 1989; Bischof, Lang
& Sun 2000). Half of the arithmetic is the product A X, half the update, both matrix products. Out of core, the update
of panel k − 1 and the product of panel k share one reading of A: the panel itself is updated first, and factored.

`reduce_to_band` runs the steps on a matrix in memory: the plain form of the one on stored tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.lapack import geqrt
from ntk.linalg.tile_cholesky import update

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Reflectors:
    """Q = I − V T Vᵀ: V (m, r) unit lower trapezoidal, T (r, r) upper triangular."""

    v: Matrix
    t: Matrix


def panel_qr(panel: Matrix) -> tuple[Reflectors, Matrix]:
    """P = Q [R; 0] by Householder reflections.

    Args:
        panel: P, (m, w), m ≥ 1.

    Returns:
        The r = min(m, w) reflectors, and R (r, w) upper triangular or trapezoidal.
    """
    m, w = panel.shape
    r = min(m, w)
    factored = np.array(panel, order="F")
    t = geqrt(factored)
    upper = np.triu(factored[:r])
    v = factored[:, :r]
    v[:r] = np.tril(v[:r], -1)
    np.fill_diagonal(v, 1.0)
    return Reflectors(v, np.triu(t)), upper


def update_factor(v: Matrix, x: Matrix, y: Matrix) -> Matrix:
    """W = Y − ½ V (Xᵀ Y), all (n, r)."""
    return y - v @ (0.5 * (x.T @ y))


def rank_2b_update(block: Matrix, rows: tuple[Matrix, Matrix], columns: tuple[Matrix, Matrix]) -> None:
    """A_ij ← A_ij − V_i W_jᵀ − W_i V_jᵀ in place.

    Args:
        block: A_ij, (p, q), writable and contiguous.
        rows: (V_i, W_i), each (p, r).
        columns: (V_j, W_j), each (q, r).
    """
    # Two products of slices as they lie in memory: one of twice the inner size would need copies side by side.
    (vi, wi), (vj, wj) = rows, columns
    update(block, vi.T, wj.T)
    update(block, wi.T, vj.T)


class HostSweep:
    """One share of a sweep: tiles brought from A_{k−1} to A_k, and their part of Y = A_k X, each tile used twice.

    Args:
        x: X = V T of this panel, (n, b), zero above its rows.
        before: V and W of the panel before, (n, b) each; None when the tiles are A_k already.
    """

    def __init__(self, x: Matrix, before: tuple[Matrix, Matrix] | None):
        # BLAS as it is bound here subtracts.
        self._minus_x = -x
        self._before = before
        self._product = np.zeros_like(x)

    def take(self, tile: Matrix, rows: slice, columns: slice, *, diagonal: bool) -> None:
        """A_{k−1}[rows, columns] becomes A_k[rows, columns], and is multiplied.

        Args:
            tile: writable and C-contiguous.
            diagonal: whether the transpose of the tile is a part of it.
        """
        if self._before is not None:
            v, w = self._before
            rank_2b_update(tile, (v[rows], w[rows]), (v[columns], w[columns]))
        update(self._product[rows], tile.T, self._minus_x[columns])
        if not diagonal:
            update(self._product[columns], tile, self._minus_x[rows])

    def product(self) -> Matrix:
        """The share's part of Y, (n, b)."""
        return self._product


def apply(reflectors: Reflectors, vectors: Matrix) -> None:
    """Z ← Q Z in place, for Z of m rows: the back-transformation of eigenvectors by one panel."""
    vectors -= reflectors.v @ (reflectors.t @ (reflectors.v.T @ vectors))


def reduce_to_band(matrix: Matrix, bandwidth: int) -> tuple[Matrix, list[Reflectors]]:
    """The whole reduction in memory.

    Args:
        matrix: (n, n) symmetric, not changed.
        bandwidth: b ≥ 1.

    Returns:
        The band, ab[d, j] = B[j + d, j], shape (b + 1, n), and the reflectors of each panel, those of panel k acting on
        rows (k + 1) b … n.
    """
    n, b = len(matrix), bandwidth
    a = np.array(matrix, dtype=np.float64, order="C")
    band, panels = np.zeros((b + 1, n)), []
    for start in range(0, n, b):
        stop = min(start + b, n)
        diagonal = a[: stop - start, : stop - start]
        if stop == n:
            put_panel(band, start, diagonal, np.zeros((0, stop - start)))
            break
        q, r = panel_qr(a[stop - start :, : stop - start])
        put_panel(band, start, diagonal, r)
        panels.append(q)
        a = np.ascontiguousarray(a[stop - start :, stop - start :])
        x = q.v @ q.t
        w = update_factor(q.v, x, a @ x)
        rank_2b_update(a, (q.v, w), (q.v, w))
    return band, panels


def put_panel(band: Matrix, start: int, diagonal: Matrix, r: Matrix) -> None:
    """Write a panel's diagonal block and R into the band ab[d, j] = B[j + d, j]; only lower triangles count."""
    width = len(diagonal)
    lower = np.concatenate([diagonal, r])
    for column in range(width):
        entries = lower[column : min(column + len(band), len(lower)), column]
        band[: len(entries), start + column] = entries
