"""The flow on a general loss: on the mean squared error it is the closed form; on others it obeys its equation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from ntk import predict
from ntk.predict import ODEState
from tests.ntk.predict.kernels import M, N, random_kernels

TRAIN, CROSS, _, Y = random_kernels()
TIMES = np.array([[0.0, 40.0], [3.0, 0.25]])


def squares(f, y):
    return 0.5 * jnp.mean((f - y) ** 2)


def cross_entropy(f, y):
    return -jnp.mean(jax.nn.log_softmax(f) * y)


def test_mean_squared_error_is_the_closed_form() -> None:
    flow = predict.gradient_descent(squares, TRAIN.ntk, Y, learning_rate=0.5)
    closed = predict.gradient_descent_mse(TRAIN.ntk, Y, learning_rate=0.5)
    for got, wanted in zip(
        flow(TIMES, 0.5, -0.5, CROSS.ntk), closed(TIMES, 0.5, -0.5, CROSS.ntk), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-8, atol=1e-9)
    for got, wanted in zip(flow(None, 0.5, -0.5, CROSS.ntk), closed(None, 0.5, -0.5, CROSS.ntk), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-7)
    transposed = predict.gradient_descent(squares, TRAIN.ntk, Y.T, 0.5, trace_axes=(0,))
    np.testing.assert_allclose(
        transposed(3.0, None, 0.0, CROSS.ntk).T, closed(3.0, None, 0.0, CROSS.ntk), atol=1e-8
    )


def test_momentum_is_the_linear_equation() -> None:
    """d/ds (f, q) = (q, −Θ (f − y)/size + (m − 1)/√η q), solved by the matrix exponential."""
    rate, momentum, t = 0.7, 0.9, 6.0
    flow = predict.gradient_descent(squares, TRAIN.ntk, Y, rate, momentum)
    zero, eye = np.zeros((N, N)), np.eye(N)
    generator = np.block([[zero, eye], [-TRAIN.ntk / Y.size, (momentum - 1) / np.sqrt(rate) * eye]])
    moved = expm(np.sqrt(rate) * t * generator) @ np.concatenate([-Y, np.zeros_like(Y)])
    np.testing.assert_allclose(flow(t), Y + moved[:N], rtol=1e-7, atol=1e-8)
    # A state is resumed, velocities included.
    half = flow(t / 2, ODEState(0.0, 0.0), None, CROSS.ntk)
    whole, resumed = flow(t, ODEState(0.0, 0.0), None, CROSS.ntk), flow(t / 2, half, None, CROSS.ntk)
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
    assert whole.fx_test.shape == whole.qx_test.shape == (M, 2)


def test_cross_entropy_obeys_its_equation() -> None:
    labels = (Y.max(axis=1, keepdims=True) == Y).astype(float)
    flow = predict.gradient_descent(cross_entropy, TRAIN.ntk, labels)
    t, step = 5.0, 1e-3
    before, now, after = flow(np.array([t - step, t, t + step]), None, 0.0, CROSS.ntk)
    train = np.asarray(flow(t))
    slope = np.exp(train) / np.exp(train).sum(axis=1, keepdims=True)
    gradient = (slope - labels) / labels.size
    np.testing.assert_allclose((after - before) / (2 * step), -CROSS.ntk @ gradient, rtol=1e-6)
    assert now.shape == (M, 2)


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_infinite_time_waits_for_slow_modes_but_not_for_still_ones(momentum: float | None) -> None:
    theta, y = np.diag([1.0, 0.5, 3e-3, 0.0]), np.array([[1.0], [-2.0], [3.0], [4.0]])
    cross = np.array([[0.5, 0.2, 1e-3, 0.0]])
    train, test = predict.gradient_descent(squares, theta, y, momentum=momentum)(None, 0.0, 0.0, cross)
    np.testing.assert_allclose(train, y * np.sign(np.diag(theta))[:, None], atol=1e-7)
    np.testing.assert_allclose(test, cross[:, :3] @ (y[:3] / np.diag(theta)[:3, None]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_infinite_time_takes_rounding_of_the_kernel_for_zero(dtype: type) -> None:
    """A kernel of rank 3: rounded to float32 its null space has eigenvalues that are tiny but not zero."""
    x = np.random.default_rng(0).standard_normal((12, 3))
    trained = predict.gradient_descent(squares, (x @ x.T).astype(dtype), Y)(None)
    np.testing.assert_allclose(trained, x @ np.linalg.lstsq(x, Y)[0], atol=1e-5)


def test_what_has_no_end_or_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntk.predict.flow.MAX_STEPS", 50)
    labels = (Y.max(axis=1, keepdims=True) == Y).astype(float)
    with pytest.raises(RuntimeError, match="not at its end after 50 steps"):
        predict.gradient_descent(cross_entropy, TRAIN.ntk, labels)(None)
    flow = predict.gradient_descent(squares, TRAIN.ntk, Y)
    with pytest.raises(ValueError, match="at least 0"):
        flow(-1.0)
    with pytest.raises(ValueError, match="velocities"):
        flow(1.0, ODEState(0.0, qx_train=1.0))
    with pytest.raises(ValueError, match="belongs into"):
        flow(1.0, ODEState(0.0), 0.0, CROSS.ntk)
    with pytest.raises(ValueError, match="columns"):
        flow(1.0, 0.0, 0.0, CROSS.ntk[:, :3])
    with pytest.raises(ValueError, match="momentum"):
        predict.gradient_descent(squares, TRAIN.ntk, Y, momentum=1.5)
    np.testing.assert_array_equal(flow(None, Y), Y)
