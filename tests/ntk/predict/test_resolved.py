"""Outputs at long times are right or refused, whatever rounding does to a kernel with equal rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.linalg import LinAlgError

from ntk import predict
from ntk.analytic.results import NngpNtkKernels
from ntk.linalg.matrix_functions import relaxation

RNG = np.random.default_rng(4)
X, X_NEW = RNG.standard_normal((12, 3)), RNG.standard_normal((5, 3))
TWICE = np.array([0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11])
Y = RNG.standard_normal((len(TWICE), 2))
TIMES = [1.0, 1e4, 1e7, 1e10, 1e13, 1e15, 1e17, 1e20, 1e50, 1e300]


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 2)


def exact(t: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance (of NNGP = NTK) without equal rows: two of them are one that weighs √2."""
    weight = np.sqrt(np.bincount(TWICE))
    means = np.stack([Y[i == TWICE].mean(axis=0) for i in range(len(X))])
    values, vectors = np.linalg.eigh(weight[:, None] * kernel(X, X) * weight)
    cross = kernel(X_NEW, X) * weight @ vectors
    tau = t / Y.size
    mean = cross * relaxation(values, tau) @ (vectors.T @ (weight[:, None] * means))
    return mean, kernel(X_NEW, X_NEW) - cross * relaxation(values, 2 * tau) @ cross.T


def fits(found: np.ndarray, wanted: np.ndarray, size: float) -> bool:
    return bool(np.all(np.abs(np.asarray(found) - wanted) <= 0.01 * size))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("t", TIMES)
def test_mean_is_right_or_refused(t: float, dtype: type) -> None:
    train, cross = kernel(X[TWICE], X[TWICE]).astype(dtype), kernel(X_NEW, X[TWICE]).astype(dtype)
    predict_fn = predict.gradient_descent_mse(train, Y)
    wanted = exact(t)[0]
    late = t > (1e14 if dtype is np.float64 else 1e5)
    with jax.enable_x64(True):
        under_jit = np.asarray(jax.jit(lambda t: predict_fn(t, None, 0.0, cross))(jnp.asarray(t)))
    try:
        found = predict_fn(t, None, 0.0, cross)
    except LinAlgError as error:
        assert late and "hint: shorter times" in str(error)
        assert np.isnan(under_jit).any()
    else:
        assert fits(found, wanted, np.abs(Y).max())
        assert fits(under_jit, wanted, np.abs(Y).max())
    # On the rows trained on every time is long enough.
    trained = predict_fn(t, 0.0)
    assert np.all(np.isfinite(trained)) and np.abs(trained).max() <= 3 * np.abs(Y).max()


@pytest.mark.parametrize("name", ["nngp", "ntk"])
@pytest.mark.parametrize("t", TIMES)
def test_covariance_is_right_or_refused(t: float, name: str) -> None:
    def kernel_fn(a: np.ndarray, b: np.ndarray | None, get: object) -> object:
        k = kernel(a, a if b is None else b)
        return k if isinstance(get, str) else NngpNtkKernels(k, k)

    ensemble = predict.gradient_descent_mse_ensemble(kernel_fn, X[TWICE], Y)
    try:
        found = ensemble(t, X_NEW, name, compute_cov=True)
    except LinAlgError:
        assert t > 1e13
        return
    mean, covariance = exact(t)
    assert fits(found.mean, mean, np.abs(Y).max())
    if name == "nngp":
        assert fits(found.covariance, covariance, 1.0)
    assert np.linalg.eigvalsh(found.covariance)[0] > -0.01


def test_what_is_well_conditioned_is_never_refused() -> None:
    train, cross = kernel(X, X) + np.eye(len(X)), kernel(X_NEW, X)
    y = Y[: len(X)]
    for dtype in (np.float64, np.float32):
        outputs = predict.gradient_descent_mse(train.astype(dtype), y)(1e300, None, 0.0, cross.astype(dtype))
        np.testing.assert_allclose(outputs, cross @ np.linalg.solve(train, y), rtol=1e-4, atol=1e-5)
