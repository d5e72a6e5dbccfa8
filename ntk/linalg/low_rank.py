"""Low-rank approximations K ≈ U Λ Uᵀ of a positive semi-definite matrix, and the preconditioners they make.

`Pivots` is accelerated randomly pivoted Cholesky as state in, state out: a state says which rows of K it `wants`, and
`grow` takes them; nothing else of the matrix is ever needed but its diagonal. `nystrom` is the randomised Nyström
approximation, from the product with one random matrix.

Y. Chen, E. N. Epperly, J. A. Tropp, R. J. Webber 2022, arXiv:2207.06503; E. N. Epperly, J. A. Tropp, R. J. Webber 2024,
arXiv:2410.03969, algorithm 2.1 (accelerated); M. Díaz, E. N. Epperly, Z. Frangella, J. A. Tropp, R. J. Webber 2023,
arXiv:2304.12465 (as a preconditioner); Z. Frangella, J. A. Tropp, M. Udell 2021, arXiv:2110.02820, algorithm 2.1.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXHAUSTED = 100
"""The approximation is exact up to rounding when the mean of its residual's diagonal is below this many ε of K's."""

TAIL_SHARE = 0.5
"""The tail, as a share of the mean eigenvalue of K − F Fᵀ; iterations hardly depend on it from 0.1 to 1."""


@dataclass(frozen=True, slots=True)
class Pivots:
    """K ≈ F Fᵀ so far.

    Attributes:
        factor: Fᵀ, float64 (room, n); the first `rank` rows are filled. Shared by successive states and grown in place.
        rank: columns of F.
        residual: diagonal of K − F Fᵀ, (n,), ≥ 0.
        trace: of K.
        clipped: what was cut off below zero to keep the residual ≥ 0: rounding alone if K is positive semi-definite.
        wants: rows of K that are proposed as pivots, (proposals,), drawn with probability ∝ residual, ties included.
        round: counts the proposals, and with `seed` decides them.
        seed: of the random choices.
        proposals: rows wanted at once.
    """

    factor: Array
    rank: int
    residual: Array
    trace: float
    clipped: float
    wants: NDArray[np.int64]
    round: int
    seed: int
    proposals: int

    @property
    def finished(self) -> bool:
        """No room is left, or nothing but rounding is left of K."""
        return self.rank == len(self.factor) or not len(self.wants)

    @property
    def trace_residual(self) -> float:
        """Σ max((K − F Fᵀ)_ii, 0). Of a positive semi-definite K it is tr(K − F Fᵀ) and bounds ‖K − F Fᵀ‖; of an
        indefinite one tr(K − F Fᵀ) is `clipped` less, and neither bounds anything: it may be 0 with much left of K."""
        return float(self.residual.sum())


def begin_pivots(diagonal: Array, room: int, *, proposals: int, seed: int = 0) -> Pivots:
    """The state before the first rows: rank 0. `diagonal` is K's, (n,); `room` the largest rank."""
    residual, clipped = _positive(diagonal)
    n = len(residual)
    start = Pivots(
        np.empty((min(room, n), n)), 0, residual, float(residual.sum()), clipped, np.empty(0, np.int64), 0, seed,
        proposals,
    )  # fmt: skip
    return _proposed(start)


def grow(state: Pivots, rows: Array) -> Pivots:
    """Accept or reject the proposed pivots and add the accepted ones.

    A proposal is accepted with the probability that its residual, after the pivots accepted before it, bears to the
    one that it was drawn with: the pivots are those of one-at-a-time sampling, and a repeated or tied row, of which
    nothing is left, is never one.

    Args:
        state: not finished.
        rows: K[state.wants, :], (proposals, n).
    """
    wanted, filled = state.wants, state.factor[: state.rank]
    inner = rows[:, wanted] - filled[:, wanted].T @ filled[:, wanted]
    rng = np.random.default_rng([state.seed, state.round, 1])
    chosen = _accepted(inner, state.residual[wanted], rng.random(len(wanted)), len(state.factor) - state.rank)
    pivots = wanted[chosen]
    lower = np.linalg.cholesky(inner[np.ix_(chosen, chosen)]) if len(chosen) else np.empty((0, 0))
    new = rows[chosen] - filled[:, pivots].T @ filled
    new = scipy.linalg.solve_triangular(lower, new, lower=True, overwrite_b=True, check_finite=False)
    rank = state.rank + len(chosen)
    state.factor[state.rank : rank] = new
    left = state.residual - np.einsum("ij,ij->j", new, new)
    left[pivots] = 0.0
    residual, clipped = _positive(left)
    clipped += state.clipped
    return _proposed(
        dataclasses.replace(state, rank=rank, residual=residual, clipped=clipped, round=state.round + 1)
    )


def _positive(diagonal: Array) -> tuple[Array, float]:
    """The diagonal without what is below zero in it, and how much that is."""
    return np.maximum(diagonal, 0.0), -float(np.minimum(diagonal, 0.0).sum())


def _accepted(inner: Array, drawn: Array, luck: Array, room: int) -> NDArray[np.int64]:
    """Positions of the accepted proposals; `inner` is the residual of K on them (arXiv:2410.03969, algorithm 2.2)."""
    h = inner.copy()
    accepted: list[int] = []
    for i in range(len(h)):
        # Below a pivot's rounding there is nothing left to divide by.
        if (
            len(accepted) < room
            and h[i, i] > EXHAUSTED * np.finfo(np.float64).eps * drawn[i]
            and luck[i] * drawn[i] < h[i, i]
        ):
            accepted.append(i)
            column = h[i:, i] / math.sqrt(h[i, i])
            h[i:, i:] -= np.outer(column, column)
    return np.array(accepted, np.int64)


def _proposed(state: Pivots) -> Pivots:
    left = state.trace_residual
    nothing = left <= EXHAUSTED * np.finfo(np.float64).eps * state.trace
    if nothing or state.rank == len(state.factor):
        return dataclasses.replace(state, wants=np.empty(0, np.int64))
    rng = np.random.default_rng([state.seed, state.round, 0])
    wants = rng.choice(len(state.residual), size=state.proposals, p=state.residual / left)
    return dataclasses.replace(state, wants=wants.astype(np.int64))


@dataclass(frozen=True, slots=True)
class LowRank:
    """K ≈ U Λ Uᵀ + tail · I.

    Attributes:
        vectors: Uᵀ with orthonormal rows, float64 (rank, n).
        values: Λ, descending, (rank,).
        tail: size that what U Λ Uᵀ leaves of K is taken to have in every direction, > 0 (`resolved_tail`).
        trace_residual: tr(K − U Λ Uᵀ), for a positive semi-definite K a bound of its norm (`Pivots.trace_residual`);
            NaN where it is not known.
        clipped: what was set to zero because it was below (`Pivots.clipped`): beyond rounding, K is indefinite.
    """

    vectors: Array
    values: Array
    tail: float
    trace_residual: float
    clipped: float = 0.0

    @property
    def rank(self) -> int:
        return len(self.values)

    def precondition(self, shift: float, v: Array) -> Array:
        """M⁻¹ V for M = U Λ Uᵀ + (tail + λ) I, V of shape (n, m).

        In this form nothing cancels, however small λ is (arXiv:2304.12465, section 2.3). There M is U Λ Uᵀ + λ I; but
        where K has a long tail the eigenvalues that were not captured are far above λ, and taking them for zero cost
        up to three times the iterations on digits.
        """
        scale = 1.0 / (self.tail + shift)
        inside = self.vectors @ v
        return scale * v + self.vectors.T @ (
            (1.0 / (self.values + self.tail + shift) - scale)[:, None] * inside
        )

    def inverse_diagonal(self, shift: float) -> Array:
        """The diagonal of M⁻¹ of `precondition`, (n,)."""
        scale = 1.0 / (self.tail + shift)
        weights = 1.0 / (self.values + self.tail + shift) - scale
        return scale + np.einsum("r,rn,rn->n", weights, self.vectors, self.vectors)


def resolved_tail(tail: float, trace: float, n: int) -> float:
    """`tail`, but not below what rounding may hide of the mean eigenvalue of K: without a ridge a model whose tail is
    zero has no inverse."""
    return max(tail, EXHAUSTED * float(np.finfo(np.float64).eps) * trace / n)


def from_pivots(state: Pivots) -> LowRank:
    """U and Λ of F Fᵀ, by an orthogonal factorisation of F and the singular values of its small factor."""
    n = state.factor.shape[1]
    tail = resolved_tail(TAIL_SHARE * state.trace_residual / max(n - state.rank, 1), state.trace, n)
    if not state.rank:
        return LowRank(np.empty((0, n)), np.empty(0), tail, state.trace_residual, state.clipped)
    q, r = np.linalg.qr(state.factor[: state.rank].T)
    left, singular, _ = scipy.linalg.svd(r, check_finite=False)
    return LowRank(np.ascontiguousarray((q @ left).T), singular**2, tail, state.trace_residual, state.clipped)


def nystrom(test: Array, product: Array, trace: float) -> LowRank:
    """The randomised Nyström approximation K Ω (Ωᵀ K Ω)⁻¹ Ωᵀ K.

    Args:
        test: Ω with orthonormal columns, (n, rank), from `nystrom_test`.
        product: K Ω.
        trace: of K.
    """
    shift = np.finfo(np.float64).eps * float(np.linalg.norm(product))
    y = product + shift * test
    inner = test.T @ y
    lower = np.linalg.cholesky((inner + inner.T) / 2)
    b = scipy.linalg.solve_triangular(lower, y.T, lower=True, check_finite=False).T
    vectors, singular, _ = scipy.linalg.svd(b, full_matrices=False, check_finite=False)
    values = np.maximum(singular**2 - shift, 0.0)
    left, tail = trace - float(values.sum()), resolved_tail(float(values[-1]), trace, len(test))
    return LowRank(np.ascontiguousarray(vectors.T), values, tail, max(left, 0.0), max(-left, 0.0))


def nystrom_test(n: int, rank: int, *, seed: int | list[int] = 0) -> Array:
    """Ω for `nystrom`: an orthonormal basis of `rank` Gaussian vectors."""
    gaussian = np.random.default_rng(seed).standard_normal((n, rank))
    return np.linalg.qr(gaussian)[0]
