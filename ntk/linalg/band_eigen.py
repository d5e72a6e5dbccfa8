"""Eigenvalues and chosen eigenvectors of a symmetric band matrix in memory, ab[i, j] = A[j + i, j], (b + 1, n)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.linalg.lapack import get_lapack_funcs

from ntk.linalg.band_narrowing import narrow
from ntk.linalg.lapack import tridiagonalise

Matrix = NDArray[np.float64]

NARROW = 16
"""A wider band is narrowed to this before it is made tridiagonal by rotations, which do not run at the speed of matrix
products and on one core only: n = 8,192, b = 128 takes 2.0 + 2.5 s by way of 64, 1.4 + 1.6 by way of 16 on two cores,
1.9 + 1.6 on one."""

ITERATIONS = 3
"""Steps of inverse iteration: one brings a random vector to ε, the others repair an unlucky start."""

CLUSTER = 1e-3
"""Eigenvectors whose eigenvalues lie closer than this share of max |λ| are made orthogonal (as LAPACK's dstein does
it)."""


def band_eigenvalues(band: Matrix, *, threads: int = 1) -> Matrix:
    """All eigenvalues, descending: narrower band (on so many threads), tridiagonal, then the root-free QR algorithm
    (dsterf)."""
    diagonal, off = tridiagonalise(narrow(band, min(len(band) - 1, NARROW), threads=threads))
    if len(diagonal) == 1:
        return diagonal
    values = eigh_tridiagonal(diagonal, off, eigvals_only=True, lapack_driver="sterf")
    return np.asarray(values)[::-1]


def band_eigenvectors(band: Matrix, values: Matrix, *, norm: float, seed: int = 0) -> Matrix:
    """Eigenvectors of given eigenvalues by inverse iteration (Wilkinson 1965; Ipsen 1997): (A − λI) x_{s+1} = x_s.

    Equal or nearly equal eigenvalues get different vectors, since each is kept orthogonal to the earlier ones of its
    cluster; the shifts within a cluster are spread by a few ε so that no two factorisations are the same.

    Args:
        band: (b + 1, n).
        values: (k,) eigenvalues to working accuracy, descending.
        norm: max |λ|.

    Returns:
        (n, k), columns of unit length. Memory: 24 b n bytes besides, twice while a factorisation is made.
    """
    b, n = len(band) - 1, band.shape[1]
    rng = np.random.default_rng(seed)
    vectors = np.empty((n, len(values)), order="F")
    if not norm > 0:
        return np.eye(n, len(values))
    (gbtrs,) = get_lapack_funcs(("gbtrs",), dtype=np.float64)
    spacing = 4 * float(np.finfo(np.float64).eps) * norm
    shift = np.inf
    for k, value in enumerate(values):
        shift = min(float(value), shift - spacing)
        factor, pivots = _factor(band, shift, spacing)
        cluster = vectors[:, :k][:, np.abs(values[:k] - value) < CLUSTER * norm]
        x = rng.standard_normal(n)
        for _ in range(ITERATIONS):
            x, _ = gbtrs(factor, b, b, x / np.linalg.norm(x), pivots)
            x /= np.max(np.abs(x))
            for _ in range(2):
                x -= cluster @ (cluster.T @ x)
        vectors[:, k] = x / np.linalg.norm(x)
    return vectors


def _factor(band: Matrix, shift: float, smallest: float) -> tuple[Matrix, NDArray[np.intc]]:
    """LU factors of A − shift·I with partial pivoting; pivots that vanish are replaced by `smallest`."""
    b, n = len(band) - 1, band.shape[1]
    general = np.zeros((3 * b + 1, n), order="F")
    general[2 * b :] = band
    for i in range(1, b + 1):
        general[2 * b - i, i:] = band[i, : n - i]
    general[2 * b] -= shift
    (gbtrf,) = get_lapack_funcs(("gbtrf",), dtype=np.float64)
    factor, pivots, _ = gbtrf(general, b, b, overwrite_ab=True)
    diagonal = factor[2 * b]
    diagonal[np.abs(diagonal) < smallest] = smallest
    return factor, pivots
