"""λ_min of streamed operators, and ridges that let a factorisation finish."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ntk.linalg.smallest import smallest_eigenvalue, sufficient_ridge


def symmetric(values: np.ndarray, seed: int = 0) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((values.size, values.size)))
    a = (q * values) @ q.T
    return (a + a.T) / 2


def norm_of(a: np.ndarray) -> float:
    return float(np.abs(a).sum(axis=1).max())


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([5, 48, 49, 150]), st.floats(-1.0, 0.5), st.integers(0, 2**31))
def test_an_isolated_smallest_eigenvalue_is_found(n, smallest, seed):
    values = np.append(np.linspace(0.7, 3, n - 1), smallest)
    a = symmetric(values, seed)
    found = smallest_eigenvalue(lambda x: a @ x, n, norm=norm_of(a))
    assert found.converged
    assert found.value == pytest.approx(smallest, abs=1e-7 * norm_of(a))
    assert found.lower <= smallest + 1e-9 <= found.value + 1e-6


@pytest.mark.parametrize("floor", [-1e-3, -1e-6, 0.0, 1e-8])
def test_kernel_like_spectra_with_a_clustered_end_are_resolved_to_the_tolerance(floor):
    values = np.maximum(100.0 / np.arange(1, 401) ** 2.5, 1e-7) + floor
    a = symmetric(values)
    found = smallest_eigenvalue(lambda x: a @ x, 400, norm=norm_of(a))
    assert found.value == pytest.approx(values.min(), abs=1e-6)
    assert found.products <= 200


def test_an_early_stop_says_so_and_still_brackets_an_eigenvalue():
    values = np.linspace(0, 1, 400)
    a = symmetric(values)
    found = smallest_eigenvalue(lambda x: a @ x, 400, norm=norm_of(a), tolerance=1e-13, max_products=40)
    assert not found.converged
    assert found.products == 40
    assert found.value >= -1e-12
    assert np.abs(values - found.value).min() <= found.residual
    assert found.value < 0.02


def test_a_multiple_of_the_identity_has_one_eigenvalue():
    found = smallest_eigenvalue(lambda x: 2.0 * x, 100, norm=2.0)
    assert found.value == pytest.approx(2.0)
    assert found.residual < 1e-12
    assert found.products == 1


def test_the_same_seed_gives_the_same_answer():
    a = symmetric(np.geomspace(1, 1e-6, 100))
    runs = [smallest_eigenvalue(lambda x: a @ x, 100, norm=norm_of(a)) for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("norm", [0.0, np.nan, np.inf])
def test_a_norm_that_bounds_nothing_is_refused(norm):
    with pytest.raises(ValueError, match="norm must be a positive number"):
        smallest_eigenvalue(lambda x: x, 100, norm=norm)


def test_a_product_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match=r"product 1 .* is not finite"):
        smallest_eigenvalue(lambda x: x * np.nan, 100, norm=1.0)


@settings(deadline=None, max_examples=100)
@example(-7.5, False, 52443427)
@given(st.floats(-8, 0), st.booleans(), st.integers(0, 2**31))
def test_with_a_sufficient_ridge_the_factorisation_finishes(exponent, single, seed):
    dtype = np.float32 if single else np.float64
    values = np.append(np.geomspace(1, 1e-12, 119), -(10.0**exponent))
    a = symmetric(values, seed).astype(dtype)
    with pytest.raises(np.linalg.LinAlgError):
        scipy.linalg.cholesky(a - np.finfo(dtype).eps * 120 * np.eye(120, dtype=dtype))
    exact = a.astype(np.float64)
    found = smallest_eigenvalue(lambda x: exact @ x, 120, norm=norm_of(exact))
    ridge = sufficient_ridge(found.lower, 120, norm_of(exact), float(np.finfo(dtype).eps))
    assert ridge < 2 * 10.0**exponent + 1e-2
    scipy.linalg.cholesky(a + dtype(ridge) * np.eye(120, dtype=dtype))
