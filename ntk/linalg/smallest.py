"""How indefinite is a matrix, and which ridge would cure it: λ_min of a streamed symmetric operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

Product = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_CHECK_EVERY = 5
# A residual only says that *some* eigenvalue is near. Asking a hundred times more of it than was promised leaves
# the smallest one time to show itself when it hides beside a cluster, and costs 3 % more products than ten times.
_MARGIN = 0.01


@dataclass(frozen=True, slots=True)
class SmallestEigenvalue:
    """An estimate of λ_min.

    Attributes:
        value: a Ritz value, hence never below λ_min (up to rounding).
        residual: ‖Av − λv‖ of its unit vector: an eigenvalue lies within `residual` of `value`.
        resolution: the absolute tolerance asked for; eigenvalues closer than this are not told apart.
        converged: whether the residual met the tolerance.
        products: matrix–vector products spent, each a pass over the matrix.
    """

    value: float
    residual: float
    resolution: float
    converged: bool
    products: int

    @property
    def lower(self) -> float:
        """value − max(residual, resolution): the end of the interval on the safe side."""
        return self.value - max(self.residual, self.resolution)


def smallest_eigenvalue(
    product: Product, n: int, *, norm: float, tolerance: float = 1e-8, max_products: int = 200, seed: int = 0
) -> SmallestEigenvalue:
    """λ_min of a symmetric matrix A known by its products, to an absolute `tolerance` · `norm`.

    Lanczos steps with full reorthogonalisation (Golub & Van Loan 2013, chapter 10). Restarted methods save
    memory and pay in products: on kernel spectra, whose lower end is a dense cluster, ARPACK needs two to
    three times as many for the same residual, and here each product reads the matrix once. The tolerance is
    absolute because a λ_min that is zero up to rounding has no relative accuracy.

    When `max_products` is too small, the best estimate so far is returned with ``converged=False`` and its
    residual. The basis takes 8 n · max_products bytes.

    Args:
        product: x ↦ A x for x of shape (n,).
        norm: ‖A‖ or an upper bound, for instance the largest absolute row sum.

    Raises:
        ValueError: `norm` is not a positive number, or a product is not finite.
    """
    if not (np.isfinite(norm) and norm > 0):
        raise ValueError(f"norm must be a positive number, got {norm}")
    steps = min(max_products, n)
    basis = np.zeros((steps, n))
    alpha = np.zeros(steps)
    beta = np.zeros(steps)
    v = np.random.default_rng(seed).standard_normal(n)
    v /= np.linalg.norm(v)
    value, residual = np.inf, np.inf
    for k in range(steps):
        basis[k] = v
        w = product(v)
        alpha[k] = v @ w
        known = basis[: k + 1]
        for _ in range(2):
            # Twice keeps the basis orthogonal to rounding (Giraud, Langou, Rozložník, van den Eshof 2005).
            w = w - known.T @ (known @ w)
        beta[k] = np.linalg.norm(w)
        if not np.isfinite(beta[k]):
            raise ValueError(f"product {k + 1} of the matrix with a unit vector is not finite")
        # With the basis exhausted or the subspace invariant, the Ritz values are eigenvalues.
        exhausted = k + 1 == n or beta[k] <= n * np.finfo(np.float64).eps * norm
        if exhausted or (k + 1) % _CHECK_EVERY == 0 or k + 1 == steps:
            value, residual = _smallest_ritz_pair(alpha[: k + 1], beta[: k + 1])
            if exhausted or residual <= _MARGIN * tolerance * norm:
                return SmallestEigenvalue(value, residual, tolerance * norm, True, k + 1)
        v = w / beta[k]
    return SmallestEigenvalue(value, residual, tolerance * norm, False, steps)


def sufficient_ridge(lambda_min: float, n: int, norm: float, eps: float) -> float:
    """A ridge with which a Cholesky factorisation of A + ridge·I runs to its end.

    max(0, −λ_min) + n ε ‖A‖: it lifts the smallest eigenvalue above the backward error of the factorisation
    (Higham 2002, theorem 10.7, with the constant seen in practice instead of the worst case).

    Args:
        lambda_min: the smallest eigenvalue or a bound below it (`SmallestEigenvalue.lower`).
        n: rows of A.
        norm: ‖A‖, spectral or an upper bound.
        eps: ``numpy.finfo(dtype).eps`` of the factorisation.
    """
    return max(0.0, -lambda_min) + n * eps * norm


def _smallest_ritz_pair(alpha: NDArray[np.float64], beta: NDArray[np.float64]) -> tuple[float, float]:
    """The smallest eigenvalue of the tridiagonal matrix, and the residual β_k |s_k| of its Ritz vector."""
    values, vectors = eigh_tridiagonal(alpha, beta[:-1], select="i", select_range=(0, 0))
    return float(values[0]), abs(float(beta[-1] * vectors[-1, 0]))
