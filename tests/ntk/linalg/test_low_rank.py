"""Pivoted Cholesky and Nyström approximations bound what they leave, and ties and low rank do no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.linalg import low_rank


def kernel(n, seed=0, width=1.0):
    x = np.random.default_rng(seed).standard_normal((n, 3))
    return np.exp(-np.sum((x[:, None] - x[None]) ** 2, axis=2) / 2 / width**2)


def pivoted(matrix, rank, proposals=8, seed=0):
    state = low_rank.begin_pivots(np.diag(matrix), rank, proposals=proposals, seed=seed)
    while not state.finished:
        state = low_rank.grow(state, matrix[state.wants])
    return state


def dense(made):
    return (made.vectors.T * made.values) @ made.vectors


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**31))
def test_what_is_left_is_positive_and_its_trace_known(n, rank, proposals, seed):
    matrix = kernel(n, seed)
    state = pivoted(matrix, rank, proposals, seed)
    factor = state.factor[: state.rank]
    left = matrix - factor.T @ factor
    assert state.rank <= min(rank, n)
    assert np.linalg.eigvalsh(left)[0] >= -1e-12 * n
    np.testing.assert_allclose(np.diag(left), state.residual, atol=1e-12 * n)
    made = low_rank.from_pivots(state)
    np.testing.assert_allclose(dense(made), factor.T @ factor, atol=1e-12 * n)
    np.testing.assert_allclose(made.vectors @ made.vectors.T, np.eye(made.rank), atol=1e-12)
    assert np.all(np.diff(made.values) <= 0)
    assert np.linalg.norm(left, 2) <= made.trace_residual + 1e-12 * n


@settings(deadline=None, max_examples=40)
@given(st.integers(5, 40), st.integers(1, 12), st.floats(-12, -2), st.integers(0, 2**31))
def test_of_an_indefinite_matrix_it_is_known_what_was_clipped(n, proposals, exponent, seed):
    """Σ residual − clipped = tr(K − F Fᵀ), whatever K; of a kernel only rounding is clipped."""
    values = np.append(np.geomspace(1, 1e-9, n - 1), -(10.0**exponent))
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
    matrix = (q * values) @ q.T
    state = pivoted((matrix + matrix.T) / 2, n, proposals, seed)
    factor = state.factor[: state.rank]
    trace = np.trace(matrix) - np.sum(factor**2)
    # Rounding of F Fᵀ, which is as large as F where K is indefinite.
    rounding = 1e-13 * (1 + np.sum(factor**2))
    assert np.min(state.residual) >= 0 and state.clipped >= 0
    assert abs(state.trace_residual - state.clipped - trace) <= rounding
    assert pivoted(kernel(n, seed), n, proposals, seed).clipped <= 1e-12 * n


def test_an_exhausted_residual_says_that_something_was_clipped():
    """A trace residual of 0 bounds nothing of what is left of an indefinite matrix; what was clipped shows it."""
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))
    matrix = (q * np.append(np.geomspace(1, 1e-3, 10), np.full(30, -1e-6))) @ q.T
    state = pivoted(matrix, 40)
    factor = state.factor[: state.rank]
    left = np.linalg.norm(matrix - factor.T @ factor, 2)
    assert state.finished and state.trace_residual < 1e-7 < left
    assert state.clipped > 1e-6


@pytest.mark.parametrize("matrix", [np.ones((9, 9)), np.eye(9), np.diag(np.arange(9.0))])
def test_without_a_ridge_the_model_has_an_inverse(matrix):
    v, test = np.ones((9, 1)), low_rank.nystrom_test(9, 4)
    for made in (
        low_rank.from_pivots(pivoted(matrix, 9)), low_rank.nystrom(test, matrix @ test, np.trace(matrix))
    ):  # fmt: skip
        model = dense(made) + made.tail * np.eye(9)
        np.testing.assert_allclose(model @ made.precondition(0.0, v), v, atol=0.1)
        assert np.all(made.inverse_diagonal(0.0) > 0)


def test_a_matrix_of_low_rank_is_found_out_and_repeated_rows_are_no_pivots():
    x = np.random.default_rng(0).standard_normal((20, 5))
    matrix = np.repeat(np.repeat(x @ x.T, 4, axis=0), 4, axis=1)
    state = pivoted(matrix, 60, proposals=30)
    assert state.rank == 5
    np.testing.assert_allclose(state.factor[:5].T @ state.factor[:5], matrix, atol=1e-10)
    assert pivoted(np.zeros((7, 7)), 5).rank == 0
    assert low_rank.from_pivots(pivoted(np.zeros((7, 7)), 5)).vectors.shape == (0, 7)


def test_random_pivots_come_near_the_best_approximation():
    matrix = kernel(300, width=1.5)
    values = np.linalg.eigvalsh(matrix)[::-1]
    state = pivoted(matrix, 60, proposals=20)
    # Chen et al. 2022, theorem 2.3: rank r with r somewhat above k reaches a small multiple of the best k's trace.
    assert state.trace_residual <= 2 * values[40:].sum()


@pytest.mark.parametrize("shift", [1e-8, 1e-3, 1.0])
def test_the_preconditioner_inverts_its_model(shift):
    made = low_rank.from_pivots(pivoted(kernel(50), 20))
    v = np.random.default_rng(0).standard_normal((50, 3))
    model = dense(made) + (made.tail + shift) * np.eye(50)
    np.testing.assert_allclose(model @ made.precondition(shift, v), v, atol=1e-8)
    assert made.tail < made.trace_residual / 30


def test_nystrom_is_below_the_matrix_and_exact_at_its_rank():
    matrix = kernel(80, width=2.0)
    test = low_rank.nystrom_test(80, 30)
    made = low_rank.nystrom(test, matrix @ test, float(np.trace(matrix)))
    left = matrix - dense(made)
    assert np.linalg.eigvalsh(left)[0] >= -1e-10
    assert np.linalg.norm(left, 2) <= made.trace_residual + 1e-10
    np.testing.assert_allclose(np.trace(left), made.trace_residual, atol=1e-9)
    v = np.random.default_rng(0).standard_normal((80, 2))
    model = dense(made) + (1e-3 + made.tail) * np.eye(80)
    np.testing.assert_allclose(model @ made.precondition(1e-3, v), v, atol=1e-8)
