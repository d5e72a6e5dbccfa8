"""Functions of a symmetric matrix that is known by its products alone: gradient flow without an eigendecomposition.

Gradient flow on ½‖A α − y‖² in the norm of A⁻¹, which is what training of a linearised network does to the coefficients
of kernel regression, solves α' = y − A α, α(0) = 0:

    α(τ) = A⁻¹ (I − e^{−Aτ}) y

Lanczos steps give α ≈ ‖y‖ V relaxation(T, τ) e₁ from the Krylov space of (A, y) (Hochbruck & Lubich 1997), every column
of y with its own space and all of them with one pass over the matrix per step. How far that is off is not estimated but
bounded. The residual y − A α − α' of the approximation is exactly ‖y‖ β |relaxation(T, σ)ₘ₁|, which never decreases
with σ: T has positive off-diagonals, so every entry of D e^{−Tσ} D, D = diag(±1), is positive. The error follows the
same equation with the residual for y, so with λ_min(A) ≥ μ ≥ 0

    ‖error(τ)‖ ≤ min( ∫₀^τ residual(σ) dσ, residual(τ) · relaxation(μ, τ) ),

and the integral is an entry of a function of T again. To either is added what rounding errors may do: products are
those of a matrix within a few ε λ_max of A, which changes α by at most as much · ‖α‖ · relaxation(μ, τ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from ntk.tracing import traced

Product = Callable[[NDArray[np.float64]], NDArray[np.float64]]

_ROUNDING = 8 * float(np.finfo(np.float64).eps)
"""Of products and sums, in units of λ_max."""
_MEANINGLESS = 0.1
"""A relative error by rounding above which coefficients say nothing."""

_CHECK_EVERY = 5
_CHECK_GROWTH = 8
"""Bounds are computed every few steps, later every eighth of the steps done, since they take the cube of these."""


def relaxation(rates: Any, time: Any) -> Any:
    """(1 − e^{−λτ}) / λ, and τ where λ = 0: what a mode of rate λ ≥ 0 has integrated by time τ. Elementwise.

    Accurate to rounding for small λτ (through expm1), and 1/λ at τ = ∞. Times may be traced.
    """
    xp = jnp if traced(time) else np
    zero = rates == 0
    safe = xp.where(zero, 1.0, rates)
    return xp.where(zero, time, -xp.expm1(-safe * time) / safe)


def integrated_relaxation(rates: NDArray[np.float64], time: float) -> NDArray[np.float64]:
    """(τ − relaxation(λ, τ)) / λ, and τ²/2 where λ = 0: `relaxation` integrated up to a finite time. Elementwise."""
    x = rates * time
    small = x < 0.5
    series = np.zeros_like(x)
    for k in range(16, 1, -1):
        series = 1 / math.factorial(k) - np.where(small, x, 0.0) * series
    safe = np.where(small, 1.0, x)
    return time**2 * np.where(small, series, (safe + np.expm1(-safe)) / safe**2)


@dataclass(frozen=True, slots=True)
class GradientFlow:
    """Coefficients α(τ) of gradient flow, and how well they are known.

    Attributes:
        coefficients: (times, n, r).
        bounds: (times, r), ‖error‖₂ of each column is at most this, rounding errors in float64 included; infinite for
            infinite time with `lower` = 0, unless the Krylov space is everything.
        residuals: (times, r), ‖y − A α − α'‖₂ of each column; at infinite time ‖y − A α‖₂.
        converged: whether every column met the tolerance, or what rounding errors leave of it.
        products: passes over the matrix.
    """

    coefficients: NDArray[np.float64]
    bounds: NDArray[np.float64]
    residuals: NDArray[np.float64]
    converged: bool
    products: int


def gradient_flow(
    product: Product,
    y: NDArray[np.floating],
    times: Sequence[float] | NDArray[np.floating],
    *,
    lower: float = 0.0,
    tolerance: float = 1e-8,
    max_products: int = 300,
) -> GradientFlow:
    """A⁻¹ (I − e^{−Aτ}) y for a symmetric positive semi-definite A, at all times from one Krylov space.

    It takes about √(τ λ_max) steps times the digits wanted, and for τ beyond 1/λ_min as many as conjugate gradients.
    The basis takes 8 · n · r · max_products bytes. No answer is better than rounding errors let it be: where their
    bound, 8 ε λ_max min(τ, 1/lower) relative, is above `tolerance`, steps end there, and where it is above 0.1 nothing
    converges.

    Args:
        product: X ↦ A X for X of shape (n, r), float64.
        y: right-hand sides, (n,) or (n, r).
        times: τ ≥ 0 in units of 1/λ, infinity included; of training with the mean squared error τ = η t / y.size.
        lower: a bound λ_min(A) ≥ lower ≥ 0 that is known, the ridge in A for instance.
        tolerance: wanted for ‖error‖/‖α‖ of each column at each time. At infinite time with lower = 0, the limit
            without a ridge, no error can be promised, and the residual must fall below tolerance · ‖y‖ instead.
        max_products: passes over the matrix before giving up; the best coefficients so far have converged = False.

    Raises:
        ValueError: a negative time or bound, y that is not finite, products that are not.
        numpy.linalg.LinAlgError: A has a negative eigenvalue.
    """
    tau = np.asarray(times, np.float64).ravel()
    columns = np.asarray(y, np.float64).reshape(len(y), -1)
    if not (tau >= 0).all() or not 0 <= lower < np.inf:
        raise ValueError(f"times and lower must be at least 0, got {times} and {lower}")
    if not np.isfinite(columns).all():
        raise ValueError("y is not finite")
    # Squares of columns of any finite size stay within the range.
    sizes = np.abs(columns).max(axis=0, initial=0.0)
    sizes[sizes == 0] = 1.0
    columns = columns / sizes
    space = _Lanczos(product, columns, min(max_products, len(columns)))
    check = 0
    while True:
        space.step()
        last = space.full or space.exhausted
        if last or space.size >= check:
            check = space.size + max(_CHECK_EVERY, space.size // _CHECK_GROWTH)
            known = _evaluated(space, tau, lower, tolerance)
            if known.converged or last:
                columns = np.matmul(known.weights.transpose(1, 0, 2), space.basis[:, : space.size])
                coefficients = np.ascontiguousarray(columns.transpose(1, 2, 0)) * sizes
                bounds, residuals = known.bounds * sizes, known.residuals * sizes
                return GradientFlow(coefficients, bounds, residuals, known.converged, space.size)


class _Lanczos:
    """Lanczos bases of (A, column) for all columns in step, each orthogonal to rounding."""

    def __init__(self, product: Product, columns: NDArray[np.float64], steps: int) -> None:
        n, r = columns.shape
        self.product, self.norms, self.size = product, np.linalg.norm(columns, axis=0), 0
        self.basis = np.zeros((r, steps, n))
        self.alpha, self.beta = np.zeros((r, steps)), np.zeros((r, steps))
        self._next = (columns / np.where(self.norms > 0, self.norms, 1.0)).T
        self._scale = 0.0

    @property
    def full(self) -> bool:
        return self.size == self.basis.shape[1]

    @property
    def exhausted(self) -> bool:
        """Whether every basis spans an invariant subspace, so that nothing is left to find."""
        return self.size > 0 and not self.beta[:, self.size - 1].any()

    def step(self) -> None:
        k, n = self.size, self.basis.shape[2]
        self.basis[:, k] = self._next
        image = np.asarray(self.product(np.ascontiguousarray(self._next.T)), np.float64).T.copy()
        if not np.isfinite(image).all():
            raise ValueError(f"product {k + 1} of the matrix is not finite")
        self.alpha[:, k] = np.einsum("cn,cn->c", self._next, image)
        known = self.basis[:, : k + 1]
        for _ in range(2):  # twice is enough (Giraud, Langou, Rozložník, van den Eshof 2005)
            image -= np.matmul(np.matmul(known, image[:, :, None]).transpose(0, 2, 1), known)[:, 0]
        beta = np.linalg.norm(image, axis=1)
        self._scale = max(self._scale, float(np.abs(self.alpha[:, k]).max() + beta.max()))
        # Below this the subspace is invariant; a basis vector made of rounding errors would mean nothing.
        beta[beta <= n * np.finfo(np.float64).eps * self._scale] = 0.0
        if k + 1 == n:
            beta[:] = 0.0
        self.beta[:, k] = beta
        self._next = np.where(beta[:, None] > 0, image / np.where(beta > 0, beta, 1.0)[:, None], 0.0)
        self.size = k + 1


@dataclass(frozen=True, slots=True)
class _Known:
    """What the tridiagonal matrices say: weights (times, r, m) of the basis vectors, bounds and residuals."""

    weights: NDArray[np.float64]
    bounds: NDArray[np.float64]
    residuals: NDArray[np.float64]
    converged: bool


def _evaluated(space: _Lanczos, tau: NDArray[np.float64], lower: float, tolerance: float) -> _Known:
    m, r, n = space.size, *space.basis.shape[::2]
    all_weights = np.zeros((len(tau), r, m))
    bounds, residuals = np.zeros((len(tau), r)), np.zeros((len(tau), r))
    converged = True
    for c in np.flatnonzero(space.norms):
        # A breakdown decouples what follows it, which is left out.
        ended = np.flatnonzero(space.beta[c, :m] == 0)
        size = int(ended[0]) + 1 if len(ended) else m
        values, vectors = eigh_tridiagonal(space.alpha[c, :size], space.beta[c, : size - 1])
        values = _not_negative(values, n)
        first, last = vectors[0] * space.norms[c], vectors[-1] * space.beta[c, size - 1]
        least = max(lower, _least(values, n)) if size == n else lower
        for index, time in enumerate(tau):
            if np.isinf(time) and values[0] == 0:
                bounds[index, c] = residuals[index, c] = np.inf
                converged = False
                continue
            weights = first * relaxation(values, time)
            all_weights[index, c, :size] = vectors @ weights
            residual, length = abs(float(last @ weights)), float(np.linalg.norm(weights))
            longest = float(relaxation(np.float64(least), time))
            simple = residual * longest if residual else 0.0
            whole = np.inf
            if np.isfinite(time):
                whole = abs(float(last @ (first * integrated_relaxation(values, time))))
            rounding = _ROUNDING * max(1.0, values[-1] * longest) if time else 0.0
            residuals[index, c] = residual
            bounds[index, c] = min(simple, whole) + (rounding * length if length else 0.0)
            if np.isinf(time) and least == 0:
                converged &= residual <= tolerance * space.norms[c]
            else:
                converged &= min(simple, whole) <= max(tolerance, rounding) * length
                converged &= rounding < _MEANINGLESS
    return _Known(all_weights, bounds, residuals, bool(converged))


def _least(values: NDArray[np.float64], n: int) -> float:
    """What the least of all eigenvalues is at least."""
    return max(0.0, float(values[0] - _resolution(values, n)))


def _not_negative(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Ritz values with rounding errors below zero removed; they lie within the spectrum of A."""
    if values[0] < -_resolution(values, n):
        raise LinAlgError(
            f"the matrix has an eigenvalue at or below {values[0]:.3g}: gradient flow on it diverges\n"
            f"hint: add a ridge of {-2 * values[0]:.1e} or more"
        )
    return np.maximum(values, 0.0)


def _resolution(values: NDArray[np.float64], n: int) -> float:
    """n ε ‖A‖: eigenvalues of an (n, n) matrix are not told apart within this."""
    return n * float(np.finfo(np.float64).eps) * float(np.abs(values).max())
