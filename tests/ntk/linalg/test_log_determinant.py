"""The determinant by a float32 factor: within its interval of the exact one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import cholesky, solve_triangular

from ntk.linalg.log_determinant import correction


@pytest.mark.parametrize("decades", [2, 5, 6.5])
def test_the_interval_holds_the_exact_determinant(decades: float) -> None:
    n, inside, widths = 120, 0, []
    eigenvalues = np.logspace(0, -decades, n)
    for seed in range(20):
        q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))
        a = (q * eigenvalues) @ q.T
        u = cholesky(a.astype(np.float32)).astype(np.float64)
        lacks = correction(
            lambda x, a=a: a @ x,
            lambda b, u=u: solve_triangular(u, b, trans=1),
            lambda b, u=u: solve_triangular(u, b),
            n,
        )
        value = 2 * np.log(np.diag(u)).sum() + lacks.value
        inside += abs(value - np.log(eigenvalues).sum()) <= lacks.half_width
        widths.append(float(lacks.half_width))
    assert inside >= 18
    # Of the size that float32 and the condition number say.
    assert np.median(widths) < 2 * np.finfo(np.float32).eps * 10**decades


def test_a_systematic_error_is_taken_away() -> None:
    """All of U is a thousandth too large, which the determinant shows n times."""
    n = 200
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))
    a = (q * np.linspace(1, 2, n)) @ q.T
    u = 1.001 * cholesky(a)
    lacks = correction(
        lambda x: a @ x, lambda b: solve_triangular(u, b, trans=1), lambda b: solve_triangular(u, b), n
    )
    assert abs(lacks.value + 2 * n * np.log(1.001)) <= lacks.half_width < 1e-4
