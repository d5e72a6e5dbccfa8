"""Block Krylov iteration: the recurrence holds, residuals are what they are said to be, and leading pairs are found."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.linalg import block_krylov as krylov
from tests.ntk.linalg.test_band import EPS, kernel, low_rank, with_spectrum


def iterate(a: np.ndarray, width: int, steps: int, restart_at: int = 1000):
    """Steps on a matrix in memory; returns the state, the basis and the next block."""
    block, basis, state = krylov.start(len(a), width), [], krylov.initial(width)
    for _ in range(steps):
        if len(basis) >= restart_at:
            state, coefficients = krylov.restart(state, width)
            basis = [krylov.combine(basis, coefficients)]
        state, following = krylov.step(state, lambda: basis, block, a @ block)  # noqa: B023
        basis.append(block)
        block = following
        if not block.shape[1]:
            break
    return state, basis, block


@pytest.mark.parametrize("restart_at", [1000, 3])
@pytest.mark.parametrize(
    "matrix", [kernel, low_rank, lambda n: with_spectrum(1.0 / np.arange(1, n + 1) ** 2)]
)
def test_recurrence_and_orthogonality(matrix, restart_at: int) -> None:
    """K V = V H + V' B E_qᵀ with [V V'] orthonormal, after restarts too."""
    a = matrix(150)
    norm = np.linalg.norm(a, 2)
    state, basis, following = iterate(a, 12, 6, restart_at)
    v = np.concatenate(basis, axis=1)
    everything = np.concatenate([v, following], axis=1)
    assert np.linalg.norm(everything.T @ everything - np.eye(everything.shape[1])) < 1e3 * EPS
    rest = a @ v - v @ state.projected
    rest[:, v.shape[1] - state.coupling.shape[1] :] -= following @ state.coupling
    assert np.linalg.norm(rest) < 1e4 * EPS * norm
    pairs = krylov.ritz_pairs(state, 8)
    vectors = krylov.combine(basis, pairs.coefficients)
    true = np.linalg.norm(a @ vectors - vectors * pairs.values, axis=0)
    assert np.allclose(true, pairs.residuals, rtol=1e-6, atol=1e3 * EPS * norm)


def test_leading_pairs_of_a_kernel_matrix_in_few_passes() -> None:
    a = kernel(600)
    exact = np.linalg.eigvalsh(a)[::-1]
    for passes in range(2, 13):
        state, _, _ = iterate(a, 60, passes)
        pairs = krylov.ritz_pairs(state, 30)
        if krylov.converged(pairs, 30, 1e-8, exact[0]):
            break
    else:
        pytest.fail("more than 12 passes")
    assert np.allclose(pairs.values, exact[:30], rtol=0, atol=1e-12 * exact[0])


def test_multiple_eigenvalues_are_all_found() -> None:
    values = np.concatenate([[4.0] * 7, [2.0] * 5, np.linspace(0, 0.5, 88)])
    state, _, _ = iterate(with_spectrum(values), 24, 8)
    assert np.allclose(krylov.ritz_pairs(state, 12).values, [4.0] * 7 + [2.0] * 5, atol=1e-10)


def test_a_matrix_of_low_rank_ends_the_iteration() -> None:
    a = low_rank(90)
    state, _, following = iterate(a, 10, 9)
    assert following.shape[1] == 0
    assert state.passes <= 2
    assert np.allclose(krylov.ritz_pairs(state, 7).values, np.linalg.eigvalsh(a)[::-1][:7])
