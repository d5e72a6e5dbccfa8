"""Dynamics equal the integrated equation, bounds hold, equal subspaces have no angle, exponents are found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from ntk.spectral.alignment import kernel_target_alignment, label_power
from ntk.spectral.comparison import centred_kernel_alignment, eigenvalue_ratios, principal_angles
from ntk.spectral.dynamics import flow_errors, flow_times
from ntk.spectral.generalisation import generalisation_bound, label_complexity, rkhs_norm
from ntk.spectral.label_law import fit_label_law
from ntk.spectral.stability import eigenvalue_bound


def kernel_matrix(n: int, seed: int):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5))
    distance = np.sum((x[:, None] - x) ** 2, axis=2)
    return np.exp(-distance / 10), rng


def test_errors_during_training_equal_the_integrated_flow():
    k, rng = kernel_matrix(24, 0)
    y = rng.standard_normal((24, 2))
    train, cross, y_test = k[:16, :16], k[16:, :16], y[16:]
    values, vectors = np.linalg.eigh(train)
    times = np.array([0.0, 0.3, 2.0, 10.0])

    def velocity(_, f):
        return -(k[:, :16] @ (f.reshape(24, 2)[:16] - y[:16])).ravel()

    outputs = solve_ivp(velocity, (0, 10), np.zeros(48), t_eval=times, rtol=1e-10, atol=1e-12).y.T
    squares = np.sum((outputs.reshape(-1, 24, 2) - y) ** 2, axis=2)
    found = flow_errors(values, vectors, y[:16], times, cross, y_test)
    np.testing.assert_allclose(found.train, squares[:, :16].mean(axis=1), rtol=1e-7)
    assert found.test is not None
    np.testing.assert_allclose(found.test, squares[:, 16:].mean(axis=1), rtol=1e-7)
    assert flow_errors(values, vectors, y[:16], times).test is None


def test_training_never_makes_the_training_error_larger():
    k, rng = kernel_matrix(20, 1)
    values, vectors = np.linalg.eigh(k)
    times = flow_times(values[-1], values[0])
    found = flow_errors(values, vectors, rng.standard_normal(20), times)
    assert np.all(np.diff(found.train) <= 0)
    assert found.train[-1] < 1e-4 * found.train[0]


def test_norms_equal_their_quadratic_forms():
    k, rng = kernel_matrix(20, 2)
    y = rng.standard_normal((20, 2))
    values, vectors = np.linalg.eigh(k)
    power = label_power(vectors, y)
    np.testing.assert_allclose(
        label_complexity(values, power), np.diag(y.T @ np.linalg.solve(k, y)), rtol=1e-8
    )
    alpha = np.linalg.solve(k + 0.1 * np.eye(20), y)
    assert rkhs_norm(values, power, 0.1) ** 2 == pytest.approx(np.sum(alpha * (k @ alpha)))
    assert np.isnan(label_complexity(values, power, floor=2 * values[0])).all()


def test_the_bound_is_that_of_arora_and_free_of_scale():
    k, rng = kernel_matrix(20, 3)
    y = rng.choice([-1.0, 1.0], (20, 1))
    half = k / 2
    complexity = float(y[:, 0] @ np.linalg.solve(half, y[:, 0]))
    assert generalisation_bound(complexity, 20) == pytest.approx(math.sqrt(2 * complexity / 20))
    assert generalisation_bound(complexity / 7, 20, 3.5) == pytest.approx(math.sqrt(2 * complexity / 20))


def test_the_bound_holds():
    """Labels that are a smooth function of the inputs: the loss min(|f − y|, 1) on new rows lies below the bound."""
    k, rng = kernel_matrix(400, 4)
    weights = rng.standard_normal(400) * (rng.random(400) < 0.02)
    y = k @ weights
    y /= np.abs(y).max()
    train = np.arange(300)
    inner = k[np.ix_(train, train)] + 1e-10 * np.eye(300)
    alpha = np.linalg.solve(inner, y[train])
    loss = np.minimum(np.abs(k[300:][:, train] @ alpha - y[300:]), 1).mean()
    bound = generalisation_bound(y[train] @ alpha, 300, 1.0)
    assert loss <= bound < 1


def test_equal_subspaces_have_no_angle():
    rng = np.random.default_rng(0)
    first, _ = np.linalg.qr(rng.standard_normal((30, 4)))
    turn, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    np.testing.assert_allclose(principal_angles(first, first @ turn), 0, atol=1e-14)
    orthogonal, _ = np.linalg.qr(np.column_stack([first, rng.standard_normal((30, 4))]))
    np.testing.assert_allclose(principal_angles(first, orthogonal[:, 4:]), math.pi / 2)
    tilted = math.cos(0.3) * first[:, :1] + math.sin(0.3) * orthogonal[:, 4:5]
    assert principal_angles(first[:, :1], tilted) == pytest.approx([0.3])


def test_ratios_of_a_scaled_spectrum_are_the_scale():
    values = np.array([4.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(eigenvalue_ratios(3 * values, values[:3]), 3)
    assert np.isnan(eigenvalue_ratios(values, values)[-1])


def upper(a, b, tile):
    cuts = [slice(start, min(start + tile, len(a))) for start in range(0, len(a), tile)]
    return ((r, c, a[r, c], b[r, c]) for i, r in enumerate(cuts) for c in cuts[i:])


@pytest.mark.parametrize("tile", [4, 7, 20])
def test_alignment_of_kernels_by_tiles_equals_the_centred_matrices(tile):
    a, rng = kernel_matrix(20, 5)
    z = rng.standard_normal((20, 3))
    b = z @ z.T
    centre = np.eye(20) - 1 / 20
    u, v = centre @ a @ centre, centre @ b @ centre
    expected = np.sum(u * v) / np.linalg.norm(u) / np.linalg.norm(v)
    assert centred_kernel_alignment(upper(a, b, tile), 20) == pytest.approx(expected)
    assert centred_kernel_alignment(upper(a, 3 * a + 2, tile), 20) == pytest.approx(1)
    # With the ideal kernel YYᵀ it is the kernel–target alignment.
    values, vectors = np.linalg.eigh(a)
    target = kernel_target_alignment(values, vectors, z)
    assert centred_kernel_alignment(upper(a, b, tile), 20) == pytest.approx(target)
    assert math.isnan(centred_kernel_alignment(upper(a, np.ones((20, 20)), tile), 20))


def test_the_label_exponent_lies_in_its_interval():
    covered = 0
    for seed in range(40):
        k = np.arange(1, 1001)
        power = k**-1.7 * np.random.default_rng(seed).standard_normal(1000) ** 2
        law = fit_label_law(power)
        assert law is not None
        covered += law.interval[0] <= 1.7 <= law.interval[1]
    assert covered >= 34  # 95 % of 40 is 38, less two standard deviations


def test_an_exact_label_law_is_found_exactly_and_none_without_power():
    law = fit_label_law(2.5 * np.arange(1, 4001) ** -1.3, 20, 3000)
    assert law is not None
    assert law.exponent == pytest.approx(1.3, rel=1e-6)
    assert (law.first, law.last) == (20, 3000)
    assert fit_label_law(np.zeros(100)) is None
    with pytest.raises(ValueError, match="first"):
        fit_label_law(np.ones(5), 3, 9)


def test_an_eigenvalue_lies_within_its_bound():
    k, rng = kernel_matrix(12, 6)
    values, vectors = np.linalg.eigh(k)
    v = vectors[:, -1] + 1e-3 * rng.standard_normal(12)
    v /= np.linalg.norm(v)
    quotient = float(v @ k @ v)
    residual = float(np.linalg.norm(k @ v - quotient * v))
    assert (
        abs(quotient - values[-1])
        <= eigenvalue_bound(residual, quotient - values[-2])
        < eigenvalue_bound(residual)
    )
    with pytest.raises(ValueError, match="residual"):
        eigenvalue_bound(-1.0)
