"""How many eigenvalues lie above σ, from the signs of a factorisation of A − σI: a count that owes nothing to whoever
found the eigenvalues.

A − σI = L D Lᵀ has as many positive eigenvalues as D (Sylvester's law of inertia; Parlett 1998, §3.3). A dense matrix
is factored with Bunch & Kaufman's pivoting. A band is eliminated by its b × b blocks,

    S_0 = B_00 − σI,    S_{k+1} = B_{k+1,k+1} − σI − B_{k+1,k} S_k⁻¹ B_{k,k+1},

and the inertias of the S_k add up (Haynsworth 1968). That needs no pivots but is as accurate as the S_k are well
conditioned, which is known afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import get_lapack_funcs

Matrix = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)

SHIFTS = 8
"""Places in a spectrum at which its eigenvalues are counted."""

LEAST_GAP = 100.0
"""Counted is where two neighbours are so many n ε λ_max apart, so that rounding moves none across."""


LIMIT = 1.0
"""Of the difference between two counts: there must be none."""


@dataclass(frozen=True, slots=True)
class Count:
    """Eigenvalues above a shift: right if none lies within `uncertainty` of it."""

    above: int
    uncertainty: float


def count_above_dense(matrix: Matrix, shift: float) -> Count:
    """Of a symmetric matrix, by dsytrf; n³/3 flops. Memory: 512 n bytes besides.

    Args:
        matrix: (n, n), Fortran-contiguous, lower triangle read; overwritten.
    """
    n = len(matrix)
    norm = float(max(np.max(matrix), -np.min(matrix))) * n if n else 0.0
    matrix[np.diag_indices(n)] -= shift
    factored, pivots, _ = _factored(matrix)
    return Count(_positive(factored, pivots), EPS * norm)


def count_above_band(band: Matrix, shift: float) -> Count:
    """Of a symmetric band matrix, about 8 n b² flops.

    Args:
        band: ab[i, j] = B[j + i, j], (b + 1, n).
    """
    width, n = max(len(band) - 1, 1), band.shape[1]
    norm = float(np.max(np.abs(band))) * (2 * len(band) - 1)
    (sytri,) = get_lapack_funcs(("sytri",), dtype=np.float64)
    above, inverse = 0, np.zeros((0, 0))
    # ‖S⁻¹‖₁ is at least 1 / min |λ(S)|.
    largest = 0.0
    for start in range(0, n, width):
        rows = slice(start, min(start + width, n))
        block = _block(band, rows, rows) - shift * np.eye(rows.stop - start)
        if start:
            coupling = _block(band, rows, slice(start - width, start))
            block -= coupling @ inverse @ coupling.T
        factored, pivots, singular = _factored(np.asfortranarray((block + block.T) / 2))
        above += _positive(factored, pivots)
        if singular:
            return Count(above, np.inf)
        lower = np.tril(sytri(factored, pivots, lower=True)[0])
        inverse = lower + np.tril(lower, -1).T
        largest = max(largest, float(np.max(np.sum(np.abs(inverse), axis=0))))
    return Count(above, EPS * norm * max(norm * largest, 1.0))


def _factored(matrix: Matrix) -> tuple[Matrix, NDArray[np.intc], bool]:
    """L and D of P A Pᵀ = L D Lᵀ in the place of A, the pivots, and whether D is singular (dsytrf; Bunch & Kaufman
    1977)."""
    sytrf, lwork = get_lapack_funcs(("sytrf", "sytrf_lwork"), dtype=np.float64)
    # With the working space that SciPy takes by itself nothing is done in blocks: 7 times slower at n = 3,000.
    space = max(int(lwork(len(matrix), lower=True)[0]), 1)
    factored, pivots, info = sytrf(matrix, lower=True, lwork=space, overwrite_a=True)
    if info < 0:
        raise ValueError(f"dsytrf refused its argument {-info}")
    return factored, pivots, info > 0


def _positive(factored: Matrix, pivots: NDArray[np.intc]) -> int:
    """Positive eigenvalues of D. Negative pivots come in pairs, one for each 2 × 2 block, which has one of either
    sign."""
    single = pivots > 0
    positive = int(np.count_nonzero(np.diagonal(factored)[single] > 0))
    return positive + int(np.count_nonzero(~single)) // 2


def _block(band: Matrix, rows: slice, columns: slice) -> Matrix:
    """B[rows, columns] of a symmetric band, rows not above columns."""
    i, j = np.arange(rows.start, rows.stop)[:, None], np.arange(columns.start, columns.stop)
    offset = np.abs(i - j)
    return np.where(offset < len(band), band[np.minimum(offset, len(band) - 1), np.minimum(i, j)], 0.0)


def shifts_between(values: Matrix, n: int) -> list[tuple[int, float, float]]:
    """Where to count: in the widest gaps of stretches of the leading eigenvalues.

    Args:
        values: the leading eigenvalues, descending, (k,).
        n: of all.

    Returns:
        (m, σ, half the gap) with λ_m > σ > λ_{m+1}, m counted from 1; none where neighbours are too close to be told
        apart.
    """
    if len(values) < 2:
        return []
    gaps = values[:-1] - values[1:]
    least = LEAST_GAP * n * EPS * float(np.max(np.abs(values), initial=0.0))
    edges = np.unique(np.geomspace(1, len(values), SHIFTS + 1).astype(int)) - 1
    found = []
    for first, last in itertools.pairwise(edges):
        at = int(first + np.argmax(gaps[first:last]))
        if gaps[at] > least:
            found.append((at + 1, float(values[at] - gaps[at] / 2), float(gaps[at] / 2)))
    return found


def worst_count(count: Callable[[float], Count], shifts: list[tuple[int, float, float]]) -> int | None:
    """The largest difference between a count and the number expected, over the shifts at which the count is sure; None
    when it is sure at none."""
    counted = [(expected, count(shift), half) for expected, shift, half in shifts]
    off = [abs(found.above - expected) for expected, found, half in counted if found.uncertainty < half]
    return max(off, default=None)
