"""Dense layers: (W, b) with W (in, out) and b (1, out) or None."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array, lax, random

from ntk.finite.network import Key, apply, init
from ntk.stax.linear import Dense
from ntk.stax.signal import Signal


def draw(
    key: Key, weight_shape: tuple[int, ...], bias_shape: tuple[int, ...], layer: Any, width: int
) -> tuple[Array, Array | None]:
    """Weights and bias of a layer with W_std, b_std, parameterization; `width` as in `weigh`."""
    key_w, key_b = random.split(key)
    weight = random.normal(key_w, weight_shape)
    bias = None if layer.b_std is None else random.normal(key_b, bias_shape)
    if layer.parameterization == "standard":
        weight = weight * (layer.W_std / (width // layer.s[0]) ** 0.5)
        bias = None if bias is None or layer.b_std is None else layer.b_std * bias
    return weight, bias


def weigh(layer: Any, params: tuple[Array, Array | None], width: int, product: Any) -> Array:
    """scale · product(W) + bias, where every unit of the product sums over `width` weights."""
    weight, bias = params
    if layer.parameterization == "ntk":
        out = product(weight) * (layer.W_std / width**0.5)
        return out if bias is None else out + layer.b_std * bias
    out = product(weight) / layer.s[0] ** 0.5
    return out if bias is None else out + bias


@init.register
def _(layer: Dense, key: Key, signal: Signal) -> Any:
    n_in, n_out = signal.channels, layer.out_dim * layer.s[1]
    return draw(key, (n_in, n_out), (*(1,) * len(signal.shape), n_out), layer, n_in)


@apply.register
def _(layer: Dense, params: Any, x: Array, **kwargs: Any) -> Array:
    return weigh(
        layer, params, x.shape[-1], lambda weight: jnp.matmul(x, weight, precision=lax.Precision.HIGHEST)
    )
