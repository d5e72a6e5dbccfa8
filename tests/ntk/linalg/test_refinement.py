"""A factor of float32 and refinement against a factor of float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ntk.linalg.refinement import EPSILON, Refined, refine

N = 120


def spd(condition: float) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))
    matrix = (q * np.geomspace(1, 1 / condition, N)) @ q.T
    return (matrix + matrix.T) / 2


def refined(matrix: np.ndarray, rhs: np.ndarray, shift: float = 0.0) -> Refined:
    """With the float32 factor of the matrix, or of the matrix and a shift."""
    factor = scipy.linalg.cho_factor((matrix + shift * np.eye(N)).astype(np.float32))

    def precondition(residual: np.ndarray) -> np.ndarray:
        scale = np.max(np.abs(residual), axis=0)
        scale[scale == 0] = 1
        return scipy.linalg.cho_solve(factor, (residual / scale).astype(np.float32)) * scale

    return refine(lambda x: matrix @ x, precondition, rhs, norm=float(np.linalg.norm(matrix)))


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5, 1e7])
def test_as_accurate_as_float64_and_every_column_by_itself(condition: float) -> None:
    matrix = spd(condition)
    rhs = np.random.default_rng(1).standard_normal((N, 3)) * [1.0, 0.0, 1e12]
    found = refined(matrix, rhs)
    assert found.converged and found.error <= 4 * EPSILON
    np.testing.assert_allclose(found.residual, rhs - matrix @ found.solution, atol=1e-3 * EPSILON * 1e12)
    assert not found.solution[:, 1].any()
    exact = scipy.linalg.solve(matrix, rhs, assume_a="pos")
    errors = np.linalg.norm(found.solution - exact, axis=0)
    assert np.all(errors <= 30 * condition * EPSILON * np.linalg.norm(exact, axis=0))


def test_a_well_conditioned_matrix_takes_few_products() -> None:
    assert refined(spd(10), np.ones((N, 1))).steps <= 6


def test_a_factor_of_something_else_stalls_and_says_so() -> None:
    rhs = np.random.default_rng(1).standard_normal((N, 2))
    found = refined(spd(1e14), rhs, shift=1e-3)
    assert not found.converged
    assert found.error > 4 * EPSILON


def test_not_a_number_ends_it() -> None:
    found = refine(lambda x: x * np.nan, lambda x: x, np.ones((N, 1)), norm=1.0)
    assert not found.converged
