"""The smallest eigenpairs of a positive definite matrix: block Lanczos on its inverse, through a factor of it.

The eigenvalues of A⁻¹ are 1/λ, so that the smallest λ, which are last in a Krylov space of A, come first in one of A⁻¹
(Golub & Van Loan 2013, §10.1; Saad 2011, §8.1). Each step solves with a whole block, two passes over the factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk.linalg import block_krylov

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SmallestPairs:
    """λ ascending (k,), unit vectors (n, k), and the solves with a block that they took.

    `converged` tells whether every ‖A⁻¹v − v/λ‖ is at most the tolerance over λ, which bounds ‖Av − λv‖ by the
    tolerance times ‖A‖.
    """

    values: Matrix
    vectors: Matrix
    solves: int
    converged: bool


def smallest_pairs(
    solve: Callable[[Matrix], Matrix], n: int, count: int, width: int, *, tolerance: float, most: int
) -> SmallestPairs:
    """The `count` smallest eigenpairs of A, positive definite.

    Args:
        solve: B ↦ A⁻¹ B, for B of shape (n, w).
        width: vectors in a block, at least `count`; each takes 8 n `most` bytes.
        tolerance: relative, see `SmallestPairs`.
        most: solves at most.
    """
    block = block_krylov.start(n, width)
    state, basis = block_krylov.initial(width), []
    while True:
        state, following = block_krylov.step(state, lambda: tuple(basis), block, solve(block))
        basis.append(block)
        pairs = block_krylov.ritz_pairs(state, count)
        enough = len(pairs.values) == count
        converged = enough and bool(np.all(pairs.residuals <= tolerance * pairs.values))
        if converged or not following.shape[1] or state.passes == most:
            break
        block = following
    vectors = block_krylov.combine(basis, pairs.coefficients)
    return SmallestPairs(1 / pairs.values, vectors, state.passes, converged or not following.shape[1])
