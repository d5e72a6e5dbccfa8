"""Leading eigenpairs of a symmetric operator from few products with many vectors: block Lanczos with thick restarts.

With an orthonormal basis V = [V_1 … V_q] and the products of its blocks known,

    K V = V H + V_{q+1} B E_qᵀ,        H = Vᵀ K V,

the eigenpairs (θ, s) of H give the Ritz pairs (θ, V s) with ‖K V s − θ V s‖ = ‖B s_q‖, s_q the part of s in the last
block (Golub & Underwood 1977). Each step costs one pass over the matrix, whatever the width of its block, so blocks are
wide: with w > k columns the error of the k-th value falls like e^{−4 q √γ} or faster, γ = λ_k / λ_{w+1} − 1 (Musco &
Musco 2015, theorem 1; Saad 2011, §6.6). New blocks are made orthogonal to the whole basis, twice, and directions in
which nothing but rounding is left are dropped. When the basis is as large as allowed, its leading Ritz vectors take its
place, and the next block stays what it is: nothing that was paid for in passes is lost (Wu & Simon 2000).

State in, state out: the caller keeps the blocks (in memory or on a disk) and owns the products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

Matrix = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class KrylovState:
    """What is known after some steps, beside the basis.

    Attributes:
        projected: H, (m, m) symmetric, m columns in the basis without the block that is next.
        coupling: B, (w', w): K V_q − V H_q = V_{q+1} B; w' = 0 when the basis spans an invariant subspace.
        widths: columns of each block in the basis, oldest first.
        norm: largest |θ| so far, an estimate of ‖K‖ from below.
        passes: products so far.
    """

    projected: Matrix
    coupling: Matrix
    widths: tuple[int, ...]
    norm: float
    passes: int

    @property
    def columns(self) -> int:
        """Columns of the basis."""
        return len(self.projected)


@dataclass(frozen=True, slots=True)
class RitzPairs:
    """The k leading pairs: values θ descending (k,), coefficients in the basis (m, k), residual norms (k,)."""

    values: Matrix
    coefficients: Matrix
    residuals: Matrix


def start(n: int, width: int, seed: int = 0) -> Matrix:
    """The first block: an orthonormal basis of `width` random directions, (n, width)."""
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, width)))[0]


def initial(width: int) -> KrylovState:
    """Before the first product."""
    return KrylovState(np.zeros((0, 0)), np.zeros((width, 0)), (), 0.0, 0)


def step(
    state: KrylovState, basis: Callable[[], Iterable[Matrix]], block: Matrix, product: Matrix
) -> tuple[KrylovState, Matrix]:
    """Take in the product of the newest block.

    Args:
        state: as the last step left it.
        basis: reads the blocks of the basis in order, without `block`; called three times.
        block: V_{q+1}, (n, w), orthonormal, orthogonal to the basis.
        product: K V_{q+1}, (n, w).

    Returns:
        The state with `block` in the basis, and the next block, (n, w') with w' ≤ w; w' = 0 when the basis spans an
        invariant subspace of K (up to rounding).
    """
    known, width = state.columns, block.shape[1]
    coefficients = np.zeros((known + width, width))
    rest = np.array(product)
    # Twice: what rounding left of the basis after the first time is gone after the second (Giraud et al. 2005).
    for _ in range(2):
        at = 0
        for v in (*basis(), block):
            part = v.T @ rest
            rest -= v @ part
            coefficients[at : at + v.shape[1]] += part
            at += v.shape[1]
    projected = np.zeros((known + width, known + width))
    projected[:known, :known] = state.projected
    projected[:, known:] = coefficients
    projected[known:, :known] = coefficients[:known].T
    corner = projected[known:, known:]
    corner[:] = (corner + corner.T) / 2
    norm = max(state.norm, float(np.max(np.abs(np.linalg.eigvalsh(corner)))))
    q, r = np.linalg.qr(rest)
    left, sizes, right = np.linalg.svd(r)
    kept = int(np.count_nonzero(sizes > len(block) * EPS * norm))
    coupling = sizes[:kept, None] * right[:kept]
    following = q @ left[:, :kept]
    # The smaller a direction was, the more of it is rounding, which need not be orthogonal to the basis.
    for v in (*basis(), block):
        following -= v @ (v.T @ following)
    following, r = np.linalg.qr(following)
    following *= np.sign(np.diagonal(r))
    widths = (*state.widths, width)
    return KrylovState(projected, coupling, widths, norm, state.passes + 1), following


def ritz_pairs(state: KrylovState, count: int) -> RitzPairs:
    """The leading `count` Ritz pairs (fewer while the basis is smaller), largest θ first."""
    order, wanted = state.columns, min(count, state.columns)
    # Only these vectors: all of them would take four times as long.
    values, vectors = eigh(state.projected, subset_by_index=(order - wanted, order - 1))
    coefficients = vectors[:, ::-1]
    last = state.coupling.shape[1]
    residuals = np.linalg.norm(state.coupling @ coefficients[state.columns - last :], axis=0)
    return RitzPairs(values[::-1], coefficients, residuals)


def combine(basis: Iterable[Matrix], coefficients: Matrix) -> Matrix:
    """V S from the blocks of V, (n, k)."""
    result: Matrix | None = None
    at = 0
    for v in basis:
        part = v @ coefficients[at : at + v.shape[1]]
        result = part if result is None else result + part
        at += v.shape[1]
    if result is None:
        raise ValueError("the basis is empty")
    return result


def restart(state: KrylovState, keep: int) -> tuple[KrylovState, Matrix]:
    """Compress the basis to its leading `keep` Ritz vectors; the block that is next stays valid.

    Returns:
        The state, and the coefficients with which the new first block is `combine`d from the old basis. H is then
        diag(θ), and K Y = Y Θ + V_{q+1} (B S_q) needs no product.
    """
    pairs = ritz_pairs(state, keep)
    last = state.coupling.shape[1]
    coupling = state.coupling @ pairs.coefficients[state.columns - last :]
    compressed = KrylovState(np.diag(pairs.values), coupling, (len(pairs.values),), state.norm, state.passes)
    return compressed, pairs.coefficients


def converged(pairs: RitzPairs, count: int, tolerance: float, norm: float) -> bool:
    """Whether `count` pairs have residuals of at most `tolerance` · norm."""
    return len(pairs.values) >= count and bool(np.all(pairs.residuals[:count] <= tolerance * norm))
