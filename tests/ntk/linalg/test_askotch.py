"""ASkotch reaches the dense solution from rows of the matrix alone, and continues from any state bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ntk import stax
from ntk.linalg import askotch

RIDGE = 1e-1


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray]:
    """An NTK of 120 rows, some of them nearly repeated, and two right-hand sides."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 8))
    x[100:] = x[:20] + 1e-6
    _, _, kernel = stax.serial(stax.Dense(64, W_std=1.5, b_std=0.05), stax.Relu(), stax.Dense(1))
    return np.asarray(kernel(x, None, "ntk"), np.float64), np.sin(x[:, :2])


def system_of(k: np.ndarray, y: np.ndarray, **changes) -> askotch.System:
    mean = float(np.trace(k)) / len(k)
    usual = {"shift": RIDGE * mean, "mean_diagonal": mean, "block": 24, "rank": 20, "limit": 400}
    return askotch.System(y, tolerance=np.full(y.shape[1], 1e-8), **(usual | changes))


def advanced(k: np.ndarray, system: askotch.System, state: askotch.State, most: int = 10**6) -> askotch.State:
    for _ in range(most):
        if state.finished:
            break
        if state.phase == "residual":
            state = askotch.look(system, state, k @ state.w)
        else:
            rows = askotch.wanted_rows(system, state)
            state = askotch.step(system, state, rows, k[np.ix_(rows, rows)], k[rows] @ state.z)
    return state


@pytest.mark.parametrize(("block", "rank"), [(24, 20), (50, 20), (120, 120)])
def test_it_converges_to_the_dense_solution(problem, block, rank) -> None:
    k, y = problem
    system = system_of(k, y, block=block, rank=rank)
    state = advanced(k, system, askotch.begin(system))
    assert state.phase == "converged"
    assert state.exact
    a = k + system.shift * np.eye(len(k))
    exact = np.linalg.solve(a, y)
    errors = np.linalg.norm(state.w - exact, axis=0) / np.linalg.norm(exact, axis=0)
    assert errors.max() <= 1e-8 * np.linalg.cond(a)
    np.testing.assert_allclose(
        np.linalg.norm(y - a @ state.w, axis=0) / np.linalg.norm(y, axis=0),
        state.residuals,
        rtol=1e-3,
        atol=1e-14,
    )


def test_a_warm_start_takes_fewer_passes(problem) -> None:
    k, y = problem
    system = system_of(k, y)
    cold = advanced(k, system, askotch.begin(system))
    near = np.linalg.solve(k + 1.1 * system.shift * np.eye(len(k)), y)
    warm = advanced(k, system, askotch.begin(system, near))
    assert warm.phase == "converged"
    assert warm.passes < cold.passes


def test_continued_from_any_state_it_is_the_same(problem) -> None:
    k, y = problem
    system = system_of(k, y)
    whole = advanced(k, system, askotch.begin(system), 40)
    for first in (1, 7, 39):
        again = advanced(k, system, advanced(k, system, askotch.begin(system), first), 40 - first)
        for name in ("w", "v", "z"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_the_end_of_its_passes_and_bad_arguments_are_named(problem) -> None:
    k, y = problem
    system = system_of(k, y, limit=3)
    ended = advanced(k, system, askotch.begin(system))
    assert ended.phase == "limit"
    assert ended.passes == 3
    with pytest.raises(ValueError, match="rank 30, block 24"):
        askotch.begin(system_of(k, y, rank=30))
    indefinite = k - 2 * k.max() * np.eye(len(k))
    assert advanced(indefinite, system_of(k, y), askotch.begin(system_of(k, y))).phase == "diverged"
