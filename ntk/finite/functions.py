"""The functions behind the names of nonlinearities."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_BY_NAME: dict[str, Callable[[Array], Array]] = {
    "elu": jax.nn.elu,
    "mish": jax.nn.mish,
    "selu": jax.nn.selu,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "swish": jax.nn.swish,
    "tanh": jnp.tanh,
}


def by_name(fn: str | Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The function called `fn` (one of `ntk.stax.elementwise.FUNCTIONS`), or `fn` itself."""
    return _BY_NAME[fn] if isinstance(fn, str) else fn


#: Sigmoid_like is ½ erf(x / SIGMOID_SCALE) + ½.
SIGMOID_SCALE = 2.4020563531719796


def hermite_coefficients(degree: int) -> tuple[float, ...]:
    """Power coefficients of the Hermite polynomial of unit norm under N(0, 1)."""
    powers = np.polynomial.hermite_e.herme2poly([0] * degree + [1])
    return tuple(float(c) for c in powers / math.sqrt(math.factorial(degree)))
