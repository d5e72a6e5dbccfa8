"""The predicted curve is exact where it must be, and holds against kernel regression on random subsets."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.spectral.held_out import measured_errors
from ntk.spectral.learning_curve import effective_ridge, eigenlearning_error, learning_curve


def power_law(n: int, alpha: float, beta: float, seed: int):
    """A kernel with λ_k = k^{−α}, random eigenvectors, and labels with (v_kᵀ y)² ∝ k^{−β}."""
    rng = np.random.default_rng(seed)
    vectors, _ = np.linalg.qr(rng.standard_normal((n, n)))
    k = np.arange(1, n + 1, dtype=float)
    values = n * k**-alpha
    y = vectors @ (np.sqrt(n) * k ** (-beta / 2) * rng.choice([-1.0, 1.0], n))
    return values, vectors, y, (vectors * values) @ vectors.T


@pytest.mark.parametrize("ridge", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("n", [1, 7, 59])
def test_the_effective_ridge_solves_its_equation(ridge, n):
    values = 60 * np.arange(1.0, 61.0) ** -1.5
    kappa = effective_ridge(values, n, ridge)
    assert kappa >= ridge
    assert np.sum((values + ridge) / (values + kappa)) == pytest.approx(n, rel=1e-9)
    kappa = effective_ridge(values, n, ridge, finite=False)
    assert np.sum(values / (values + kappa)) + len(values) * ridge / kappa == pytest.approx(n, rel=1e-9)


def test_all_rows_leave_the_ridge_as_it_is():
    values = np.arange(1.0, 11.0)
    assert effective_ridge(values, 10, 0.3) == 0.3
    assert effective_ridge(np.append(values, np.zeros(5)), 12, 0.0, finite=False) == 0.0


@pytest.mark.parametrize("ridge", [1e-6, 0.05, 3.0])
def test_regression_with_a_power_law_kernel_errs_as_predicted(ridge):
    values, vectors, y, kernel = power_law(240, 1.4, 1.8, 0)
    sizes = [12, 40, 100, 180, 230]
    curve = learning_curve(values, vectors, y, sizes, ridge)
    measured, error = measured_errors(kernel, y, sizes, ridge)
    np.testing.assert_allclose(curve.error, measured, rtol=0.06, atol=3 * error.max())
    assert np.all(np.diff(curve.effective_ridge) < 0)


def test_a_population_much_larger_than_the_sample_is_eigenlearning():
    values, vectors, y, _ = power_law(600, 1.2, 1.6, 1)
    n, ridge = 6, 0.5
    curve = learning_curve(values, vectors, y, [n], ridge)
    power = np.square(vectors.T @ y)
    assert curve.mean_field[0] == pytest.approx(eigenlearning_error(values, power, n, ridge), rel=0.02)


def test_one_row_less_than_all_is_leave_one_out():
    values, vectors, y, kernel = power_law(200, 1.3, 1.5, 2)
    ridge = 0.4
    inverse = np.linalg.inv(kernel + ridge * np.eye(200))
    left_out = inverse @ y / np.diag(inverse)
    curve = learning_curve(values, vectors, y, [199], ridge)
    assert curve.error[0] == pytest.approx(np.mean(left_out**2), rel=5e-3)


def test_both_ways_of_measuring_agree():
    _, _, y, kernel = power_law(40, 1.3, 1.5, 3)
    ridge, rng = 0.1, np.random.default_rng(0)
    inverse = np.linalg.inv(kernel + ridge * np.eye(40))
    order = rng.permutation(40)
    train, test = order[:30], order[30:]
    direct = y[test] - kernel[np.ix_(test, train)] @ np.linalg.solve(
        kernel[np.ix_(train, train)] + ridge * np.eye(30), y[train]
    )
    block = np.linalg.solve(inverse[np.ix_(test, test)], inverse[test] @ y)
    np.testing.assert_allclose(block, direct, rtol=1e-9)
    # One subset of each kind, seen through the mean over many: n = 20 by training rows, n = 21 by held-out rows.
    errors, spread = measured_errors(kernel, y, [20, 21], ridge)
    assert abs(errors[0] - errors[1]) < 6 * spread.max()


def test_labels_of_several_outputs_add_up():
    values, vectors, y, kernel = power_law(60, 1.3, 1.5, 4)
    both = np.column_stack([y, 2 * y])
    one, two = (learning_curve(values, vectors, labels, [20], 0.1).error for labels in (y, both))
    np.testing.assert_allclose(two, 5 * one)
    np.testing.assert_allclose(
        measured_errors(kernel, both, [20], 0.1)[0], 5 * measured_errors(kernel, y, [20], 0.1)[0]
    )


def test_impossible_sizes_are_refused():
    values, vectors, y, kernel = power_law(10, 1.3, 1.5, 5)
    with pytest.raises(ValueError, match="1 <= n < 10"):
        learning_curve(values, vectors, y, [10], 0.1)
    with pytest.raises(ValueError, match="1 <= n < 10"):
        measured_errors(kernel, y, [0], 0.1)
