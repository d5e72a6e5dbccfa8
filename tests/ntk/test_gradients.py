"""Derivatives of kernels by their inputs: finite everywhere, and right where they exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.stax import Dense, serial

NAMES = ("nngp", "ntk")
A, B, C = np.array([1.0, -0.5, 0, 0]), np.array([0, 0, 0.7, 1.2]), np.array([0.3, 0.9, -0.4, 0.2])


def dense(act, depth, bias=None):
    return serial(*[Dense(8, 1.3, bias), act] * depth, Dense(1, 1.0, bias))


def derivatives(network, x, y, along, dtype=np.float64):
    """Of the kernels of x with y, both by name, when the rows of x move along others: by JAX and by differences."""

    def kernels(t):
        values = network.kernel_fn(x.astype(dtype) + t * along.astype(dtype), jnp.asarray(y, dtype), NAMES)
        return jnp.stack(values)

    with jax.enable_x64(True):
        by_jax = jax.jit(jax.jacrev(kernels))(dtype(0))
        step = 1e-4
        return np.asarray(by_jax), np.asarray(kernels(step) - kernels(-step)) / (2 * step)


ACTIVATIONS = [
    stax.Sin(),
    stax.Cos(),
    stax.Rbf(),
    stax.Erf(),
    stax.Gelu(),
    stax.Gabor(),
    stax.Sign(),
    stax.LeakyRelu(0.2),
    stax.RectifiedMonomial(2),
]


@pytest.mark.parametrize("act", ACTIVATIONS, ids=str)
def test_orthogonal_inputs(act):
    x, y = np.stack([A, C]), np.stack([B, A + C])
    assert x[0] @ y[0] == 0
    got, numeric = derivatives(dense(act, 1), x, y, np.stack([C + B, A]))
    np.testing.assert_allclose(got, numeric, rtol=1e-6, atol=1e-6)


SMOOTH = [stax.Sin(), stax.Rbf(), stax.Erf(), stax.Gelu(), stax.ElementwiseNumerical("tanh", 30)]


@pytest.mark.parametrize("act", SMOOTH, ids=str)
def test_zero_rows_of_smooth_networks(act):
    x, y = np.stack([0 * A, C]), np.stack([B, A, 0 * A])
    got, numeric = derivatives(dense(act, 2), x, y, np.stack([C + B, A]))
    np.testing.assert_allclose(got, numeric, rtol=1e-5, atol=1e-6)


ROUGH = [stax.Sign(), stax.LeakyRelu(0.2), stax.RectifiedMonomial(2), stax.ExpNormalized()]


@pytest.mark.parametrize("act", [*ROUGH, SMOOTH[0], stax.ElementwiseNumerical("tanh", 5)], ids=str)
def test_zero_rows_leave_every_derivative_finite_and_others_as_they_are(act):
    x, y = np.stack([A, C, 0 * A]).astype(np.float32), np.stack([0 * A, B]).astype(np.float32)

    @jax.jit
    def gradients(x):
        kernel_fn = dense(act, 2).kernel_fn
        return jax.jacrev(lambda x: [jnp.stack(kernel_fn(x, x2, NAMES)) for x2 in (None, y)])(x)

    for got, without, columns in zip(gradients(x), gradients(x[:2]), (2, None), strict=True):
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got[:, :2, :columns, :2], without, rtol=1e-4, atol=1e-6)


def test_of_a_relu_at_zero_the_linear_part_counts():
    x, y = 0 * A[None], np.stack([B, C])
    network = dense(stax.LeakyRelu(0.2), 2)
    got, _ = derivatives(network, x, y, A[None])
    linear, _ = derivatives(serial(*[Dense(8, 1.3 * 0.6)] * 2, Dense(1)), x, y, A[None])
    np.testing.assert_allclose(got, linear, rtol=1e-12)


@pytest.mark.parametrize("end", [stax.Flatten(), stax.GlobalAvgPool()], ids=str)
def test_images_with_black_patches_have_finite_derivatives(end):
    image = np.random.default_rng(0).random((2, 6, 6, 1)).astype(np.float32)
    image[0, :4, :4] = 0
    conv = stax.Conv(4, (3, 3), padding="SAME", W_std=1.4)
    network = serial(conv, stax.Relu(), conv, stax.Relu(), end, Dense(1))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(network.kernel_fn(x, None, "ntk"))))(image)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
