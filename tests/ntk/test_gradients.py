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
