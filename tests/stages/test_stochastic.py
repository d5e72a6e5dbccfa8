"""Cross-validation from random signs: near the exact values within its own error bars, nearer with a preconditioner."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.linalg import low_rank
from pipeline.stages.stochastic import cross_validation

N, PROBES = 200, 8


@pytest.fixture(scope="module")
def problem():
    """A, its low-rank model, random signs and right-hand sides."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((N, N)))
    k = (q * np.geomspace(1.0, 1e-4, N)) @ q.T
    pivots = low_rank.begin_pivots(np.diag(k).copy(), 100, proposals=20)
    while not pivots.finished:
        pivots = low_rank.grow(pivots, k[pivots.wants])
    model = low_rank.from_pivots(pivots)
    return k, model, rng.choice([-1.0, 1.0], size=(N, PROBES)), rng.standard_normal((N, 3))


def test_the_diagonal_of_the_model_is_that_of_its_inverse(problem) -> None:
    _, model, _, _ = problem
    dense = (model.vectors.T * model.values) @ model.vectors + (model.tail + 1e-2) * np.eye(N)
    np.testing.assert_allclose(model.inverse_diagonal(1e-2), np.diag(np.linalg.inv(dense)), rtol=1e-9)


def test_error_bars_cover_and_shrink_with_the_model(problem) -> None:
    k, model, signs, y = problem
    inverse = np.linalg.inv(k + 1e-2 * np.eye(N))
    alpha, diagonal = inverse @ y, np.diag(inverse)
    exact = {
        "mean_inverse_diagonal": diagonal.mean(),
        "gcv_rmse": np.sqrt(np.mean(alpha**2)) / diagonal.mean(),
    }
    plain = cross_validation(alpha, signs, inverse @ signs)
    helped = cross_validation(
        alpha, signs, inverse @ signs, (model.precondition(1e-2, signs), model.inverse_diagonal(1e-2))
    )
    for name in ("mean_inverse_diagonal", "gcv_rmse"):
        for found in (plain, helped):
            assert abs(found[name] - exact[name]) <= 5 * found[f"{name}_error"]
        assert helped[f"{name}_error"] < 0.5 * plain[f"{name}_error"]
    assert cross_validation(alpha, signs[:, :0], signs[:, :0]) == {}
