"""Fixed linear maps of positions at finite width. The infinite-width rules apply the same maps to covariances."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk.finite.network import apply
from ntk.stax.position_signal import resized
from ntk.stax.rearranging import DotGeneral, ImageResize, Index


@apply.register
def _(layer: ImageResize, params: Any, x: Array, **kwargs: Any) -> Array:
    shape = (x.shape[0], *resized(layer, x.shape[1:-1]), x.shape[-1])
    return jax.image.resize(x, shape, layer.method, layer.antialias, precision=lax.Precision.HIGHEST)


@apply.register
def _(layer: Index, params: Any, x: Array, **kwargs: Any) -> Array:
    return x[layer.items(x.ndim)]


@apply.register
def _(layer: DotGeneral, params: Any, x: Array, **kwargs: Any) -> Array:
    if layer.constant is None:
        return x
    constant = jnp.asarray(layer.constant, x.dtype)
    factors = (constant, x) if layer.is_lhs else (x, constant)
    product = lax.dot_general(*factors, layer.dimension_numbers, precision=lax.Precision.HIGHEST)
    axes = layer.axes(x.ndim)
    return jnp.moveaxis(product, [axes.index(("input", axis)) for axis in (0, x.ndim - 1)], (0, -1))
