"""The smallest eigenpairs through a factor: those of LAPACK, also where the smallest are equal."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from ntk.linalg.inverse_krylov import smallest_pairs


@pytest.mark.parametrize("least", [[1e-6, 2e-6, 3e-6], [1e-9, 1e-9, 1e-9], [0.3, 0.31, 0.32]])
def test_smallest_pairs_are_lapacks(least: list[float]) -> None:
    n = 120
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))
    values = np.concatenate([least, np.geomspace(0.4, 10, n - 3)])
    a = (q * values) @ q.T
    factor = scipy.linalg.cho_factor((a + a.T) / 2)
    found = smallest_pairs(lambda b: scipy.linalg.cho_solve(factor, b), n, 3, 8, tolerance=1e-8, most=20)
    assert found.converged
    assert np.allclose(found.values, least, rtol=0, atol=1e-13)
    assert np.linalg.norm(a @ found.vectors - found.vectors * found.values) <= 1e-7 * 10
    assert np.allclose(found.vectors.T @ found.vectors, np.eye(3), rtol=0, atol=1e-10)


def test_too_few_solves_are_said() -> None:
    a = np.diag(np.linspace(1, 2, 200))
    assert not smallest_pairs(lambda b: np.linalg.solve(a, b), 200, 3, 4, tolerance=1e-12, most=3).converged
