"""The held-out error of kernel ridge regression, measured on random subsets of the rows of a matrix in memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve

_FEWEST, _MOST, _ROWS = 6, 40, 4000
_VISITS = 4


def subsets(rows: int, n: int) -> int:
    """How many subsets of n rows are tried: about 4,000 rows in all, and enough that a row is held out four times."""
    return max(min(math.ceil(_ROWS / n), _MOST), _FEWEST, math.ceil(_VISITS * rows / (rows - n)))


def measured_errors(
    kernel: NDArray[np.floating],
    labels: NDArray[np.floating],
    sizes: ArrayLike,
    ridge: float,
    *,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train on n random rows, test on all others, several times for each n.

    Up to half the rows, (K_SS + δI) α = y_S is solved. Beyond, the residuals of held-out rows H come from the inverse
    B of the whole K + δI, r_H = (B_HH)⁻¹ (B y)_H (the block form of Rasmussen & Williams 2006, eq. 5.12), so that no
    factorisation is larger than N/2.

    Args:
        kernel: (N, N), symmetric.
        labels: (N,) or (N, outputs).
        sizes: numbers of training rows, each 1 ≤ n < N.
        ridge: δ, absolute; K + δI must be positive definite.

    Returns:
        Mean square error summed over outputs, float64 (sizes,), and its standard error over the subsets.

    Raises:
        numpy.linalg.LinAlgError: K + δI is not positive definite.
    """
    rows = len(kernel)
    y = np.asarray(labels, np.float64).reshape(rows, -1)
    rng = np.random.default_rng(seed)
    asked = np.atleast_1d(np.asarray(sizes, np.int64)).tolist()
    if not all(1 <= n < rows for n in asked):
        raise ValueError(f"needs 1 <= n < {rows} training rows, got {asked}")
    inverse = None
    found = np.empty((2, len(asked)))
    for at, n in enumerate(asked):
        errors = []
        for _ in range(subsets(rows, n)):
            order = rng.permutation(rows)
            train, test = order[:n], order[n:]
            if 2 * n <= rows:
                alpha = _solve(_shifted(kernel[np.ix_(train, train)], ridge), y[train])
                residuals = kernel[np.ix_(test, train)] @ alpha - y[test]
            else:
                if inverse is None:
                    inverse = _solve(_shifted(kernel, ridge), np.eye(rows))
                residuals = _solve(inverse[np.ix_(test, test)], inverse[test] @ y)
            errors.append(np.sum(residuals**2) / len(test))
        found[:, at] = np.mean(errors), np.std(errors, ddof=1) / math.sqrt(len(errors))
    return found[0], found[1]


def _shifted(matrix: NDArray[np.floating], ridge: float) -> NDArray[np.float64]:
    shifted = np.array(matrix, np.float64)
    shifted[np.diag_indices_from(shifted)] += ridge
    return shifted


def _solve(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return cho_solve(cho_factor(matrix, lower=True, check_finite=False), right, check_finite=False)
