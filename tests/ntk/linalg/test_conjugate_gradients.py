"""Block conjugate gradients solve what they should, resume exactly, and say so when they cannot."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk.linalg import conjugate_gradients as cg
from ntk.linalg import low_rank


def spectrum(values, seed=0):
    """A dense symmetric matrix of these eigenvalues."""
    n = len(values)
    q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2


def system(b, tolerance=1e-10, limit=500, precondition=lambda v: v):
    return cg.System(b, precondition, np.full(b.shape[1], tolerance), limit)


def solved(matrix, problem, start=None):
    state = cg.begin(problem, start)
    while not state.finished:
        state = cg.step(problem, state, matrix @ state.wants)
    return state


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 5), st.floats(0, 5), st.integers(0, 2**31))
def test_it_agrees_with_a_direct_solution(n, k, decades, seed):
    matrix = spectrum(np.logspace(-decades, 0, n), seed)
    b = np.random.default_rng(seed).standard_normal((n, k))
    problem = system(b)
    state = solved(matrix, problem)
    assert state.phase == "converged"
    assert state.exact
    residuals = np.linalg.norm(b - matrix @ state.x, axis=0) / np.linalg.norm(b, axis=0)
    np.testing.assert_allclose(state.residuals, residuals, atol=1e-15)
    assert residuals.max() <= 1e-10
    error = state.x - scipy.linalg.solve(matrix, b, assume_a="pos")
    assert np.abs(error).max() <= 1e-10 * 10**decades * np.linalg.norm(b)


def test_a_block_of_one_takes_the_steps_of_the_textbook_method():
    matrix = spectrum(np.logspace(-2, 0, 60))
    b = np.random.default_rng(1).standard_normal((60, 1))
    problem = system(b)
    state = cg.begin(problem)
    x, r = np.zeros(60), b[:, 0].copy()
    p = r.copy()
    for _ in range(15):
        state = cg.step(problem, state, matrix @ state.wants)
        step = (r @ r) / (p @ matrix @ p)
        x, fresh = x + step * p, r - step * (matrix @ p)
        p, r = fresh + (fresh @ fresh) / (r @ r) * p, fresh
        np.testing.assert_allclose(state.x[:, 0], x, rtol=1e-9, atol=1e-12)


def test_right_hand_sides_share_one_space():
    matrix = spectrum(np.logspace(-4, 0, 200))
    b = np.random.default_rng(0).standard_normal((200, 8))
    together = solved(matrix, system(b)).products
    assert together < 0.7 * solved(matrix, system(b[:, :1])).products


def test_dependent_zero_and_early_converged_columns_do_no_harm():
    matrix = spectrum(np.logspace(-3, 0, 80))
    rng = np.random.default_rng(0)
    b = rng.standard_normal((80, 4))
    eigenvector = np.linalg.eigh(matrix)[1][:, -1:]
    sides = np.hstack([b, b[:, :2] - b[:, 2:], np.zeros((80, 1)), eigenvector, 1e-9 * b[:, :1]])
    state = solved(matrix, system(sides))
    assert state.phase == "converged"
    np.testing.assert_array_equal(state.x[:, 6], 0)
    np.testing.assert_allclose(state.x[:, 0] - state.x[:, 2], state.x[:, 4], rtol=1e-6, atol=1e-7)
    assert solved(matrix, system(np.zeros((80, 2)))).products == 0


def test_a_good_preconditioner_saves_steps_and_changes_nothing_else():
    matrix = spectrum(np.logspace(-6, 0, 150)) + 1e-6 * np.eye(150)
    b = np.random.default_rng(0).standard_normal((150, 3))
    pivots = low_rank.begin_pivots(np.diag(matrix) - 1e-6, 60, proposals=10)
    while not pivots.finished:
        pivots = low_rank.grow(pivots, (matrix - 1e-6 * np.eye(150))[pivots.wants])
    made = low_rank.from_pivots(pivots)
    plain = solved(matrix, system(b, 1e-8))
    fast = solved(matrix, system(b, 1e-8, precondition=lambda v: made.precondition(1e-6, v)))
    assert fast.phase == plain.phase == "converged"
    assert fast.products < plain.products / 2
    np.testing.assert_allclose(fast.x, plain.x, rtol=0, atol=1e-8 * 1e6 * np.linalg.norm(b))


def test_a_start_near_the_solution_saves_steps():
    matrix = spectrum(np.logspace(-3, 0, 100))
    b = np.random.default_rng(0).standard_normal((100, 2))
    exact = np.linalg.solve(matrix, b)
    assert solved(matrix, system(b, 1e-8), exact).products == 1
    near = solved(matrix, system(b, 1e-8), exact * (1 + 1e-5))
    assert near.phase == "converged"
    assert near.products < solved(matrix, system(b, 1e-8)).products


def test_it_resumes_from_any_state():
    matrix = spectrum(np.logspace(-3, 0, 60))
    problem = system(np.random.default_rng(0).standard_normal((60, 3)))
    states = [cg.begin(problem)]
    while not states[-1].finished:
        states.append(cg.step(problem, states[-1], matrix @ states[-1].wants))
    for at in range(0, len(states) - 1, 5):
        state = states[at]
        while not state.finished:
            state = cg.step(problem, state, matrix @ state.wants)
        np.testing.assert_array_equal(state.x, states[-1].x)


def test_an_indefinite_matrix_is_found_and_its_curvature_bounds_an_eigenvalue():
    matrix = spectrum(np.r_[-1e-3, np.linspace(0.5, 1, 59)])
    state = solved(matrix, system(np.random.default_rng(0).standard_normal((60, 2))))
    assert state.phase == "breakdown"
    assert state.curvature is not None
    assert -1e-3 - 1e-12 <= state.curvature <= 0


@pytest.mark.parametrize(
    "matrix",
    [
        scipy.linalg.hilbert(60) + 1e-13 * np.eye(60),
        spectrum(np.logspace(-14, 0, 60)),
        np.kron(np.ones((3, 3)), spectrum(np.logspace(-4, 0, 20))) + 1e-12 * np.eye(60),
    ],
    ids=["hilbert", "condition 1e14", "repeated rows"],
)
def test_hard_matrices_converge_or_say_why_not(matrix):
    rng = np.random.default_rng(0)
    for b in (matrix @ rng.standard_normal((60, 3)), rng.standard_normal((60, 3))):
        state = solved(matrix, system(b, 1e-8, limit=400))
        residual = np.linalg.norm(b - matrix @ state.x, axis=0) / np.linalg.norm(b, axis=0)
        assert state.phase in ("converged", "limit", "stagnation", "breakdown")
        assert np.isfinite(state.x).all()
        if state.phase == "converged":
            assert residual.max() <= 2e-8
    # Smooth right-hand sides are what regression has: these must come out.
    b = matrix @ rng.standard_normal((60, 3))
    assert solved(matrix, system(b, 1e-6, limit=400)).phase == "converged"
