"""ASkotch: (K + λI) X = Y by accelerated block coordinate descent, for matrices too large to store.

A step needs some rows of K only. With B a random block of b coordinates, K̂ the Nyström approximation of K_BB of rank r
and P = K̂ + ρI, ρ = λ + λ_r(K̂),

    d  = P⁻¹ (K_B: Z + λ Z_B − Y_B) / L,   L ≈ λ_max(P⁻¹ (K_BB + λI)),
    W ← Z − I_B d,    V ← β V + (1 − β) Z − γ I_B d,    Z ← α V + (1 − α) W,

β = 1 − √(μ/ν), γ = 1/√(μν), α = 1/(1 + γν), with μ = λ relative to the mean diagonal and ν = n/b. P. Rathore,
Z. Frangella, J. Yang, M. Dereziński, M. Udell 2024, arXiv:2407.10070 (algorithm 3 and its default parameters).

State in, state out. Everything random is decided by the seed and the number of the step, so that an iteration
continued from any state is the same bit for bit. The phase says what is to be multiplied next: rows of K with Z, or, to
see the true residual, all of K with W.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.gates import column_norms
from ntk.linalg.low_rank import LowRank, nystrom, nystrom_test

Array = NDArray[np.float64]
Phase = Literal["block", "residual", "converged", "diverged", "limit"]

POWERS = 10
"""Power iterations for L, as in the paper."""

LOOK_EVERY = 20
"""Passes after which the true residual is looked at in any case; one more pass."""

DIVERGED = 1e4
"""A residual so many times the right-hand side will not come back."""


@dataclass(frozen=True, slots=True)
class System:
    """(K + λI) X = B, and how to go about it.

    Attributes:
        b: right-hand sides, float64 (n, k).
        shift: λ > 0.
        mean_diagonal: of K.
        tolerance: wanted of each column, (k,): ‖b − A x‖ ≤ tolerance · ‖b‖.
        block: coordinates of a step, 1 … n.
        rank: of the Nyström approximation of a block.
        limit: most passes; n/b steps are one, and so is a look at the true residual.
        seed: of the random choices.
    """

    b: Array
    shift: float
    mean_diagonal: float
    tolerance: Array
    block: int
    rank: int
    limit: int
    seed: int = 0

    @property
    def steps_per_pass(self) -> int:
        return -(-len(self.b) // self.block)

    @property
    def norms(self) -> Array:
        """`column_norms` of the right-hand sides."""
        return column_norms(self.b)


@dataclass(frozen=True, slots=True)
class State:
    """Where the iteration stands.

    Attributes:
        phase: `block` (rows of K are wanted next), `residual` (a product with all of K), or how it ended.
        w, v, z: the iterate and its two companions, (n, k).
        steps: done so far.
        passes: over the matrix so far, looks at the residual included.
        squares: Σ ‖residual of the block‖² since the pass began, (k,).
        residuals: ‖r‖ / ‖b‖ of each column over the last pass, estimated, or exactly where `exact`.
        exact: whether `residuals` are of B − A W.
        looked: passes at the last look.
    """

    phase: Phase
    w: Array
    v: Array
    z: Array
    steps: int
    passes: int
    squares: Array
    residuals: Array
    exact: bool
    looked: int

    @property
    def finished(self) -> bool:
        return self.phase not in ("block", "residual")


def begin(system: System, start: Array | None = None) -> State:
    """The state before the first step, from X = `start`, zero by default.

    Raises:
        ValueError: λ, the block or the rank is out of range.
    """
    n, k = system.b.shape
    if not system.shift > 0 or not 1 <= system.block <= n or not 1 <= system.rank <= system.block:
        raise ValueError(
            f"ASkotch needs λ > 0 and 1 ≤ rank ≤ block ≤ n, got λ = {system.shift}, rank {system.rank}, block "
            f"{system.block}, n = {n}"
        )
    x = np.zeros((n, k)) if start is None else np.array(start, np.float64)
    return State("block", x, x, x, 0, 0, np.zeros(k), np.full(k, np.inf), False, 0)


def wanted_rows(system: System, state: State) -> NDArray[np.int64]:
    """B of the next step, ascending, (block,)."""
    rng = np.random.default_rng([system.seed, state.steps, 0])
    return np.sort(rng.choice(len(system.b), size=system.block, replace=False)).astype(np.int64)


def step(system: System, state: State, rows: NDArray[np.int64], inner: Array, product: Array) -> State:
    """One step.

    Args:
        system: what is solved.
        state: in phase `block`.
        rows: B = `wanted_rows(system, state)`.
        inner: K_BB, (b, b).
        product: K_B: Z for Z = `state.z`, (b, k).
    """
    n, b = len(system.b), len(rows)
    mu = min(system.shift / system.mean_diagonal, b / n)
    nu = n / b
    beta, gamma = 1 - math.sqrt(mu / nu), 1 / math.sqrt(mu * nu)
    alpha = 1 / (1 + gamma * nu)
    inner = (inner + inner.T) / 2
    gradient = product + system.shift * state.z[rows] - system.b[rows]
    model = _approximation(inner, system.rank, [system.seed, state.steps, 1])
    rho = system.shift + float(model.values[-1])
    size = _largest(inner, system.shift, model, rho, np.random.default_rng([system.seed, state.steps, 2]))
    d = model.precondition(rho, gradient) / size
    w = state.z.copy()
    w[rows] -= d
    v = beta * state.v + (1 - beta) * state.z
    v[rows] -= gamma * d
    z = alpha * v + (1 - alpha) * w
    squares = state.squares + np.einsum("ij,ij->j", gradient, gradient)
    state = dataclasses.replace(state, w=w, v=v, z=z, steps=state.steps + 1, squares=squares)
    return state if state.steps % system.steps_per_pass else _pass_ended(system, state)


def look(system: System, state: State, product: Array) -> State:
    """What follows from the true residual.

    Args:
        system: what is solved.
        state: in phase `residual`.
        product: K W for W = `state.w`, (n, k).
    """
    residual = system.b - product - system.shift * state.w
    exact = np.linalg.norm(residual, axis=0) / system.norms
    passes = state.passes + 1
    phase: Phase = "converged" if _small(exact, system) else "limit" if passes >= system.limit else "block"
    return dataclasses.replace(
        state, phase=phase, passes=passes, residuals=exact, exact=True, looked=passes
    )  # fmt: skip


def _pass_ended(system: System, state: State) -> State:
    """The residual as the blocks of a pass saw it, each before its step: E ‖r_B‖² = (b/n) ‖r‖²."""
    n, seen = len(system.b), system.block * system.steps_per_pass
    residuals = np.sqrt(state.squares * (n / seen)) / system.norms
    passes = state.passes + 1
    phase: Phase = "block"
    if not np.all(residuals < DIVERGED):
        phase = "diverged"
    elif _small(residuals, system) or passes - state.looked >= LOOK_EVERY or passes + 1 >= system.limit:
        phase = "residual"
    return dataclasses.replace(
        state, phase=phase, passes=passes, squares=np.zeros_like(state.squares), residuals=residuals, exact=False
    )  # fmt: skip


def _small(residuals: Array, system: System) -> bool:
    return bool(np.all(residuals <= system.tolerance))


def _approximation(inner: Array, rank: int, seed: list[int]) -> LowRank:
    """The randomised Nyström approximation of a block; of a block of rounding errors alone a diagonal of zero."""
    test = nystrom_test(len(inner), rank, seed=seed)
    try:
        return nystrom(test, inner @ test, float(np.trace(inner)))
    except np.linalg.LinAlgError:
        # Of lower numerical rank than asked for: its eigenvectors are at hand, the block is small.
        values, vectors = np.linalg.eigh(inner)
        leading = slice(len(inner) - rank, None)
        kept = np.ascontiguousarray(vectors[:, leading][:, ::-1].T)
        return LowRank(kept, np.maximum(values[leading][::-1], 0.0), 0.0, math.nan)


def _largest(inner: Array, shift: float, model: LowRank, rho: float, rng: np.random.Generator) -> float:
    """λ_max of P⁻¹ (K_BB + λI), by power iterations; at least 1, which it is but for the tail of K̂."""
    x = rng.standard_normal((len(inner), 1))
    size = 1.0
    for _ in range(POWERS):
        x = model.precondition(rho, inner @ x + shift * x)
        size = float(np.linalg.norm(x))
        x /= size
    return max(size, 1.0)
