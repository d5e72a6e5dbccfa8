"""Preconditioned block conjugate gradients for A X = B with several right-hand sides, as state in, state out.

The iteration never sees the matrix: a state says which vectors it `wants` multiplied, and `step` takes the product.
So whoever owns the matrix streams it, and every step can be a checkpoint.

The recurrence is O'Leary's block CG in Dubrulle's form with an orthonormalised residual (BCGrQ), in the inner product
of the preconditioner M: the residual is R = Q C with Qᵀ M⁻¹ Q = I. All right-hand sides search one common Krylov
space, and it stays well defined when they are linearly dependent (one-hot labels that sum to a constant are) or
converge at different times: directions that carry nothing are dropped.

    Z = A S,  Δ = Sᵀ Z,  X += S Δ⁻¹ C,  W = Q − Z Δ⁻¹,  W = Q' ζ,  S' = M⁻¹ Q' + S ζᵀ,  C' = ζ C

D. P. O'Leary 1980, Linear Algebra Appl. 29; A. A. Dubrulle 2001, ETNA 12, algorithm BCGrQ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.gates import column_norms

Array = NDArray[np.float64]
Precondition = Callable[[Array], Array]

Phase = Literal["residual", "direction", "converged", "breakdown", "stagnation", "limit"]

CHECK_EVERY = 50
"""Steps between two looks at the true residual B − A X, which costs a product."""

DEVIATION = 0.1
"""The recurrence's residual is replaced by the true one when they differ by more than this share of the latter."""

PROGRESS = 0.5
"""Between two replacements the largest residual must fall below this share, or the iteration has stagnated."""

CURVATURE = 1e-14
"""Rayleigh quotients below this share of the largest one in the block are rounding: they count as not positive."""


@dataclass(frozen=True, slots=True)
class System:
    """A X = B, and when to stop.

    Attributes:
        b: B, float64 (n, k).
        precondition: V ↦ M⁻¹ V for (n, m), M symmetric positive definite.
        tolerance: wanted of each column, (k,): ‖b − A x‖ ≤ tolerance · ‖b‖.
        limit: most products with A.
    """

    b: Array
    precondition: Precondition
    tolerance: Array
    limit: int

    @property
    def norms(self) -> Array:
        """`column_norms` of the right-hand sides."""
        return column_norms(self.b)


@dataclass(frozen=True, slots=True)
class State:
    """Where the iteration stands.

    Attributes:
        phase: `residual` (X is to be multiplied next), `direction` (S is), or how it ended.
        x: X (n, k).
        s, q, y, c: directions (n, m), residual basis Q (n, m), M⁻¹ Q (n, m), coordinates (m, k).
        products: with A so far.
        since: steps since the residual was last known exactly.
        residuals: ‖r‖ / ‖b‖ of each column by the recurrence, or exactly where `exact`.
        exact: whether `residuals` are of B − A X.
        replaced: the largest residual over its tolerance at the last replacement.
        curvature: of a breakdown: the smallest sᵀAs / sᵀs that was met.
    """

    phase: Phase
    x: Array
    s: Array
    q: Array
    y: Array
    c: Array
    products: int
    since: int
    residuals: Array
    exact: bool
    replaced: float
    curvature: float | None = None

    @property
    def wants(self) -> Array:
        """The vectors that `step` must be given the product of."""
        return self.x if self.phase == "residual" else self.s

    @property
    def finished(self) -> bool:
        """Whether the iteration has ended, well or not."""
        return self.phase not in ("residual", "direction")


def begin(system: System, start: Array | None = None) -> State:
    """The state before the first step; `start` is a first X, zero by default (which saves a product)."""
    n, k = system.b.shape
    x = np.zeros((n, k)) if start is None else np.array(start, np.float64)
    none = np.zeros((n, 0))
    blank = State("residual", x, none, none, none, np.zeros((0, k)), 0, 0, np.full(k, np.inf), False, np.inf)
    return blank if start is not None else _restarted(system, blank, system.b)


def step(system: System, state: State, product: Array) -> State:
    """One step.

    Args:
        system: what is solved.
        state: not finished.
        product: A times `state.wants`.
    """
    if state.phase == "residual":
        return _looked(system, dataclasses.replace(state, products=state.products + 1), system.b - product)
    return _advanced(system, state, product)


def _advanced(system: System, state: State, z: Array) -> State:
    s, q, c = state.s, state.q, state.c
    delta = s.T @ z
    delta = (delta + delta.T) / 2
    curvature = _smallest_curvature(s, delta)
    products = state.products + 1
    if curvature is not None:
        return dataclasses.replace(state, phase="breakdown", products=products, curvature=curvature)
    inverse = np.linalg.inv(delta)
    x = state.x + s @ (inverse @ c)
    w = q - z @ inverse
    q, y, zeta = orthonormal(w, system.precondition(w))
    c = zeta @ c
    s = y + s @ zeta.T
    residuals = np.linalg.norm(q @ c, axis=0) / system.norms
    since = state.since + 1
    small = _worst(residuals, system) <= 1
    phase: Phase = "direction"
    if small or since >= CHECK_EVERY or not q.shape[1]:
        phase = "residual"
    elif products >= system.limit:
        phase = "limit"
    return dataclasses.replace(
        state, phase=phase, x=x, s=s, q=q, y=y, c=c, products=products, since=since, residuals=residuals, exact=False
    )  # fmt: skip


def _looked(system: System, state: State, residual: Array) -> State:
    """What follows from the true residual: the end, going on, or going on from it."""
    exact = np.linalg.norm(residual, axis=0) / system.norms
    worst = _worst(exact, system)
    deviation = _worst(np.abs(exact - state.residuals), system)
    state = dataclasses.replace(state, residuals=exact, exact=True, since=0)
    if worst <= 1:
        return dataclasses.replace(state, phase="converged")
    if state.products >= system.limit:
        return dataclasses.replace(state, phase="limit")
    if state.q.shape[1] and deviation <= DEVIATION * worst:
        return dataclasses.replace(state, phase="direction")
    if worst > PROGRESS * state.replaced:
        return dataclasses.replace(state, phase="stagnation")
    return _restarted(system, state, residual)


def _restarted(system: System, state: State, residual: Array) -> State:
    """The iteration begun anew from a true residual."""
    q, y, c = orthonormal(residual, system.precondition(residual))
    residuals = np.linalg.norm(residual, axis=0) / system.norms
    worst = _worst(residuals, system)
    phase: Phase = "direction" if worst > 1 else "converged"
    return dataclasses.replace(
        state, phase=phase, s=y, q=q, y=y, c=c, since=0, residuals=residuals, exact=True, replaced=worst
    )  # fmt: skip


def _worst(residuals: Array, system: System) -> float:
    """The largest residual over its tolerance."""
    return float(np.max(residuals / system.tolerance, initial=0.0))


def orthonormal(w: Array, v: Array) -> tuple[Array, Array, Array]:
    """W = Q ζ with Qᵀ M⁻¹ Q = I, given V = M⁻¹ W.

    By the eigenvectors of Wᵀ V, twice, because once loses half the digits; a direction below the rounding errors of
    the largest is dropped.

    Returns:
        Q (n, m'), M⁻¹ Q (n, m'), ζ (m', m) with m' ≤ m.
    """
    scales = np.sqrt(np.maximum(np.einsum("ij,ij->j", w, v), 0.0))
    kept = scales > 0
    zeta = np.diag(scales)[kept]
    q, y = w[:, kept] / scales[kept], v[:, kept] / scales[kept]
    for _ in range(2):
        gram = q.T @ y
        values, vectors = np.linalg.eigh((gram + gram.T) / 2)
        large = values > len(values) * np.finfo(np.float64).eps * np.max(values, initial=0.0)
        roots, vectors = np.sqrt(values[large]), vectors[:, large]
        q, y = q @ (vectors / roots), y @ (vectors / roots)
        zeta = (roots[:, None] * vectors.T) @ zeta
    return q, y, zeta


def _smallest_curvature(s: Array, delta: Array) -> float | None:
    """min sᵀAs / sᵀs over the block where it is not positive, else None."""
    scales = np.sqrt(np.maximum(np.diag(delta), 0.0))
    if np.all(scales > 0):
        values = np.linalg.eigvalsh(delta / np.outer(scales, scales))
        if values[0] > CURVATURE * values[-1]:
            return None
    gram = s.T @ s
    values, vectors = np.linalg.eigh(gram)
    large = values > len(values) * np.finfo(np.float64).eps * values[-1]
    basis = vectors[:, large] / np.sqrt(values[large])
    return float(np.linalg.eigvalsh(basis.T @ delta @ basis)[0])
