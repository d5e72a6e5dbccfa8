"""Solving A X = B to float64 accuracy with a factor of lower precision.

A float32 Cholesky factor costs half the time and half the bytes. Used as a preconditioner of conjugate gradients in
float64 it gives back what it lost in a few steps (Higham & Pranesh 2021, SIAM J. Sci. Comput. 43, algorithm 4.1 with
CG in the place of GMRES). Plain refinement X ← X + M⁻¹(B − A X) has the same cost per step and converges only while
κ(A) times the float32 unit is well below one; conjugate gradients need no more than that the factor exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]

EPSILON = float(np.finfo(np.float64).eps)
# A column is finished at a backward error that a float64 factor would not beat.
TARGET = 4 * EPSILON
# Steps without a new best residual (by half) in any column, after which there is no hope.
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Refined:
    """What refinement came to.

    Attributes:
        solution: X, of the shape of B.
        residual: B − A X, from a product of its own, not from the recurrence.
        steps: products with A spent, that one included.
        error: worst normwise backward error ‖b − Ax‖ / (‖A‖ ‖x‖ + ‖b‖) of a column.
        converged: whether `error` is within √n ε.
    """

    solution: NDArray[np.float64]
    residual: NDArray[np.float64]
    steps: int
    error: float
    converged: bool


def refine(
    product: Map, precondition: Map, rhs: NDArray[np.float64], *, norm: float, most: int = 60
) -> Refined:
    """Conjugate gradients on every column of B at once, each with its own coefficients.

    Args:
        product: X ↦ A X.
        precondition: R ↦ M⁻¹ R with M ≈ A positive definite.
        rhs: B, (n, r).
        norm: ‖A‖, Frobenius or spectral.
        most: steps allowed.

    The recurrence is restarted from the true residual when that is larger than it should be; a residual that no longer
    shrinks ends it. It never raises: `converged` says how it ended.
    """
    x = np.zeros_like(rhs)
    r = rhs.copy()
    steps = 0
    best = np.inf
    while True:
        x, spent = _conjugate_gradients(product, precondition, rhs, x, r, norm, most - steps)
        steps += spent + 1
        r = rhs - product(x)
        error = float(np.max(_backward_errors(r, x, rhs, norm), initial=0.0))
        # NaN is not less than anything: it ends here, and has not converged.
        if error <= TARGET or steps >= most or not error < best / 2:
            return Refined(x, r, steps, error, error <= np.sqrt(len(rhs)) * EPSILON)
        best = error


def _conjugate_gradients(
    product: Map, precondition: Map, rhs: NDArray, x: NDArray, r: NDArray, norm: float, most: int
) -> tuple[NDArray[np.float64], int]:
    """From X with residual R on (Hestenes & Stiefel 1952); returns the new X and the products spent."""
    x, r = x.copy(), r.copy()
    p = np.zeros_like(r)
    rho = np.zeros(r.shape[1])
    best, waited = np.inf, 0
    for step in range(most):
        errors = _backward_errors(r, x, rhs, norm)
        worst = float(np.max(errors, initial=0.0))
        waited = 0 if worst < best / 2 else waited + 1
        best = min(best, worst)
        active = errors > TARGET / 2
        if not active.any() or waited > PATIENCE or not np.isfinite(worst):
            return x, step
        z = precondition(r)
        before, rho = rho, _dots(r, z)
        p = z + _ratio(rho, before) * p
        q = product(p)
        # Columns that are finished stand still: their residuals are rounding errors.
        alpha = np.where(active, _ratio(rho, _dots(p, q)), 0.0)
        x += alpha * p
        r -= alpha * q
    return x, most


def _backward_errors(r: NDArray, x: NDArray, rhs: NDArray, norm: float) -> NDArray[np.float64]:
    return _ratio(np.linalg.norm(r, axis=0), norm * np.linalg.norm(x, axis=0) + np.linalg.norm(rhs, axis=0))


def _dots(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    return np.einsum("ij,ij->j", a, b)


def _ratio(numerator: NDArray, denominator: NDArray) -> NDArray[np.float64]:
    """Of columns, zero where there is nothing to divide by: a zero right-hand side, or the first step."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
