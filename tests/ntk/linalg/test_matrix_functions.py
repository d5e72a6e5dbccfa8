"""Gradient flow by products alone equals the one by eigenvectors, within the bound it gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.linalg import LinAlgError
from scipy.integrate import quad

from ntk import predict
from ntk.linalg.matrix_functions import gradient_flow, integrated_relaxation, relaxation
from ntk.predict.streamed import streamed_ensemble
from tests.ntk.predict.kernels import M, N, kernel_fn, random_kernels


def matrix(n: int, lowest: float, seed: int = 0) -> np.ndarray:
    """Symmetric with eigenvalues from `lowest` to 1, spread evenly in the logarithm."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    values = np.geomspace(lowest, 1.0, n) if lowest > 0 else np.append(0.0, np.geomspace(1e-6, 1.0, n - 1))
    dense = q * values @ q.T
    return (dense + dense.T) / 2


@pytest.mark.parametrize("time", [1e-3, 1.0, 80.0])
def test_scalar_functions(time: float) -> None:
    rates = np.array([0.0, 1e-12, 1e-3, 0.3, 0.49 / time, 0.51 / time, 2.0, 50.0])
    for rate, value, whole in zip(
        rates, relaxation(rates, time), integrated_relaxation(rates, time), strict=True
    ):
        assert value == pytest.approx(quad(lambda s, r=rate: np.exp(-r * s), 0, time)[0], rel=1e-9)
        assert whole == pytest.approx(
            quad(lambda s, r=rate: float(relaxation(np.float64(r), s)), 0, time)[0], rel=1e-9
        )
    assert relaxation(np.array([4.0]), np.inf) == 0.25


@pytest.mark.parametrize("lowest", [0.0, 1e-6, 1e-2])
@pytest.mark.parametrize("lower", [0.0, 1e-3])
def test_flow_is_within_its_bound(lowest: float, lower: float) -> None:
    n, times = 150, np.array([0.0, 1e-9, 1.0, 30.0, 1000.0])
    dense = matrix(n, lowest) + lower * np.eye(n)
    y = np.random.default_rng(1).standard_normal((n, 3))
    y[:, 1] = 0.0
    flow = gradient_flow(lambda x: dense @ x, y, times, lower=lower, tolerance=1e-9)
    values, vectors = np.linalg.eigh(dense)
    values = np.maximum(values, 0.0)
    assert flow.converged and flow.products < n
    for time, alpha, bounds in zip(times, flow.coefficients, flow.bounds, strict=True):
        exact = vectors @ (relaxation(values, time)[:, None] * (vectors.T @ y))
        errors, length = np.linalg.norm(alpha - exact, axis=0), np.linalg.norm(exact, axis=0)
        rounding = 1e-13 * max(1.0, time) * length  # of eigh
        assert np.all(errors <= bounds + rounding)
        assert np.all(errors <= 2e-9 * length + rounding)


def test_bound_holds_long_before_convergence() -> None:
    dense = matrix(150, 1e-4)
    y = np.random.default_rng(1).standard_normal(150)
    values, vectors = np.linalg.eigh(dense)
    for steps in (3, 10, 25):
        for lower in (0.0, 1e-4):
            flow = gradient_flow(lambda x: dense @ x, y, [5.0, 300.0], lower=lower, max_products=steps)
            assert not flow.converged and flow.products == steps
            for time, alpha, bound in zip((5.0, 300.0), flow.coefficients, flow.bounds, strict=True):
                exact = vectors @ (relaxation(values, time) * (vectors.T @ y))
                error = np.linalg.norm(alpha[:, 0] - exact)
                assert error <= bound[0] + 1e-12 * np.linalg.norm(exact)


@pytest.mark.parametrize("time", [1e-3, 1e2, 1e6, 1e10, 1e12, 1e14, 1e17, 1e22, 1e100])
@pytest.mark.parametrize("kind", ["graded", "pairs of equal rows", "dense"])
def test_bound_covers_rounding_at_any_time(time: float, kind: str) -> None:
    """Of matrices whose eigenvectors are known exactly, or whose condition lets eigh know them well enough."""
    y = np.random.default_rng(1).standard_normal((40, 2)) * [1.0, 1e-200]
    if kind == "graded":
        rates = 10.0 ** -np.arange(0, 20, 0.5)
        dense, exact = np.diag(rates), relaxation(rates, time)[:, None] * y
    elif kind == "dense":
        dense = matrix(40, 1e-3)
        values, vectors = np.linalg.eigh(dense)
        exact = vectors @ (relaxation(values, time)[:, None] * (vectors.T @ y))
    else:
        rates = np.geomspace(1e-3, 1.0, 20)
        dense = np.kron(np.diag(rates), np.ones((2, 2)))
        mean, half = (y[::2] + y[1::2]) / 2, (y[::2] - y[1::2]) / 2
        moved = relaxation(2 * rates, time)[:, None] * mean
        exact = np.stack([moved + time * half, moved - time * half], axis=1).reshape(40, 2)
    flow = gradient_flow(lambda x: dense @ x, y, [time])
    # BLAS may not square 1e-200.
    errors, lengths = (
        np.linalg.norm(a / [1.0, 1e-200], axis=0) for a in (flow.coefficients[0] - exact, exact)
    )
    bounds = flow.bounds[0] / [1.0, 1e-200]
    assert np.all(errors <= bounds + (1e-12 * lengths if kind == "dense" else 0.0))
    assert np.all(errors <= 0.2 * lengths) or not flow.converged
    if kind == "dense":  # nothing in it is near zero: long times are like infinite ones
        assert flow.converged and np.all(bounds <= 1e-8 * lengths)


def test_infinite_time_solves() -> None:
    ridge = 1e-4
    dense = matrix(150, 1e-6) + ridge * np.eye(150)
    y = np.random.default_rng(1).standard_normal((150, 2))
    exact = np.linalg.solve(dense, y)
    with_bound = gradient_flow(lambda x: dense @ x, y, [np.inf], lower=ridge)
    ridgeless = gradient_flow(lambda x: dense @ x, y, [np.inf])
    for flow in (with_bound, ridgeless):
        assert flow.converged
        error = np.linalg.norm(flow.coefficients[0] - exact, axis=0)
        assert np.all(error <= np.minimum(flow.bounds[0], 1e-4 * np.linalg.norm(exact, axis=0)) + 1e-10)
        np.testing.assert_allclose(
            np.linalg.norm(y - dense @ flow.coefficients[0], axis=0), flow.residuals[0], atol=1e-10
        )


def test_invariant_subspaces_end_the_search() -> None:
    values = np.repeat([1.0, 2.0, 5.0], 20)
    y = np.random.default_rng(0).standard_normal((60, 2))
    flow = gradient_flow(lambda x: values[:, None] * x, y, [3.0])
    assert flow.converged and flow.products <= 5
    np.testing.assert_allclose(flow.coefficients[0], relaxation(values, 3.0)[:, None] * y, rtol=1e-12)


def test_bad_input_is_refused() -> None:
    y = np.ones(4)
    with pytest.raises(ValueError, match="at least 0"):
        gradient_flow(lambda x: x, y, [-1.0])
    with pytest.raises(ValueError, match="y is not finite"):
        gradient_flow(lambda x: x, y * np.nan, [1.0])
    with pytest.raises(ValueError, match="product 1"):
        gradient_flow(lambda x: x * np.nan, y, [1.0])
    with pytest.raises(LinAlgError, match="hint: add a ridge"):
        gradient_flow(lambda x: -x, y, [1.0])


@pytest.mark.parametrize("t", [0.0, 5.0, np.inf])
def test_streamed_ensemble_is_the_dense_one(t: float) -> None:
    train, cross, test, y = random_kernels()
    dense = predict.gradient_descent_mse_ensemble(kernel_fn, np.arange(N), y)
    wanted = dense(t, np.arange(N, N + M), "ntk", compute_cov=True)
    got = streamed_ensemble(
        lambda x: train.ntk @ x, lambda x: train.nngp @ x, y, cross.ntk, cross.nngp, test.nngp, [t / y.size],
        lower=0.09, tolerance=1e-12,
    )  # fmt: skip
    assert got.mean_flow.converged and got.weights_flow.converged
    np.testing.assert_allclose(got.mean[0], wanted.mean, atol=1e-10)
    np.testing.assert_allclose(got.covariance[0], wanted.covariance, atol=1e-10)
