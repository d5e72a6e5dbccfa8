"""Nonlinearities at finite width: the function itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erf

from ntk.finite.network import apply
from ntk.stax.elementwise import ABRelu, Abs, Erf, LeakyRelu, Relu
from ntk.stax.layer import Layer


@singledispatch
def function(layer: Layer) -> Callable[[Array], Array]:
    """The function that a nonlinearity applies to every entry."""
    raise TypeError(f"{type(layer).__name__} is not a nonlinearity")


function.register(Relu, lambda layer: lambda x: jnp.maximum(x, 0))
function.register(LeakyRelu, lambda layer: lambda x: layer.alpha * jnp.minimum(x, 0) + jnp.maximum(x, 0))
function.register(ABRelu, lambda layer: lambda x: layer.a * jnp.minimum(x, 0) + layer.b * jnp.maximum(x, 0))
function.register(Abs, lambda layer: jnp.abs)
function.register(Erf, lambda layer: lambda x: layer.a * erf(layer.b * x) + layer.c)


def _elementwise(layer: Any, params: Any, x: Array, **kwargs: Any) -> Array:
    return function(layer)(x)


for _kind in function.registry:
    if _kind is not object:
        apply.register(_kind, _elementwise)
