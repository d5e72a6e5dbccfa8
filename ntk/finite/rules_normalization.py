"""Normalisation and dropout at finite width."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random

from ntk.errors import ArchitectureError
from ntk.finite.network import apply
from ntk.stax.normalization import BatchNorm, Dropout, LayerNorm


@apply.register
def _(layer: LayerNorm, params: Any, x: Array, **kwargs: Any) -> Array:
    mean = jnp.mean(x, axis=layer.axis, keepdims=True)
    square = jnp.mean((x - mean) ** 2, axis=layer.axis, keepdims=True)
    return (x - mean) * lax.rsqrt(square + layer.eps)


@apply.register
def _(layer: BatchNorm, params: Any, x: Array, **kwargs: Any) -> Array:
    centred = x - jnp.mean(x, axis=0)
    square = jnp.mean(centred**2, axis=0 if layer.variance == "channel" else None)
    return centred * lax.rsqrt(square + layer.eps)


@apply.register
def _(layer: Dropout, params: Any, x: Array, *, rng: Any = None, **kwargs: Any) -> Array:
    if layer.mode == "test" or layer.rate == 1:
        return x
    if rng is None:
        raise ArchitectureError("Dropout in mode train draws at random: call apply_fn(params, x, rng=key)")
    return jnp.where(random.bernoulli(rng, layer.rate, x.shape), x / layer.rate, 0)
