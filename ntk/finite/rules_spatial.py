"""Filters and pooling at finite width: filters have W (*filter, in, out) and b (1, …, 1, out) or None."""

from __future__ import annotations

from functools import reduce
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.finite.network import Key, apply, init
from ntk.finite.rules_dense import draw, weigh
from ntk.stax.geometry import Axis, axes
from ntk.stax.signal import Signal, trace
from ntk.stax.spatial import (
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalSumPool,
    MaxPool,
    SumPool,
)

_LETTERS = "XYZUV"


def _width(layer: Any, channels: int) -> int:
    return channels * prod(layer.filter_shape)


@init.register(Conv)
@init.register(ConvTranspose)
def _(layer: Any, key: Key, signal: Signal) -> Any:
    n_out = layer.out_chan * layer.s[1]
    return draw(
        key,
        (*layer.filter_shape, signal.channels, n_out),
        (*(1,) * len(signal.shape), n_out),
        layer,
        _width(layer, signal.channels),
    )


@init.register
def _(layer: ConvLocal, key: Key, signal: Signal) -> Any:
    after = trace(layer, signal)
    assert isinstance(after, Signal)
    width = _width(layer, signal.channels)
    return draw(key, (*after.spatial, width, after.channels), (1, *after.shape), layer, width)


def _padded(x: Array, geometry: tuple[Axis, ...], fill: float = 0.0) -> Array:
    widths = [(0, 0), *[(g.low, g.high) for g in geometry], (0, 0)]
    if any(g.circular for g in geometry):
        return jnp.pad(x, widths, mode="wrap")
    return jnp.pad(x, widths, constant_values=fill)


def _windows(padded: Array, geometry: tuple[Axis, ...]) -> list[Array]:
    """For every offset in a window the entries there, one for each output position."""
    slices = [padded]
    for axis, g in enumerate(geometry, start=1):
        slices = [
            lax.slice_in_dim(s, t, t + (g.out - 1) * g.stride + 1, g.stride, axis)
            for s in slices
            for t in range(g.window)
        ]
    return slices


def _numbers(rank: int) -> tuple[str, str, str]:
    spatial = _LETTERS[:rank]
    return f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"


def _geometry(layer: Any, x: Array) -> tuple[Axis, ...]:
    window = layer.filter_shape if hasattr(layer, "filter_shape") else layer.window_shape
    return axes(x.shape[1:-1], window, layer.strides, layer.padding)


@apply.register
def _(layer: Conv, params: Any, x: Array, **kwargs: Any) -> Array:
    geometry = _geometry(layer, x)
    inputs, rank = _padded(x, geometry), x.ndim - 2
    return weigh(
        layer,
        params,
        _width(layer, x.shape[-1]),
        lambda weight: lax.conv_general_dilated(
            inputs,
            weight,
            [g.stride for g in geometry],
            "VALID",
            dimension_numbers=_numbers(rank),
            precision=lax.Precision.HIGHEST,
        ),
    )


@apply.register
def _(layer: ConvLocal, params: Any, x: Array, **kwargs: Any) -> Array:
    geometry = _geometry(layer, x)
    stacked = jnp.concatenate(_windows(_padded(x, geometry), geometry), axis=-1)
    return weigh(
        layer,
        params,
        _width(layer, x.shape[-1]),
        lambda weight: jnp.einsum("n...c,...cd->n...d", stacked, weight, precision=lax.Precision.HIGHEST),
    )


@apply.register
def _(layer: ConvTranspose, params: Any, x: Array, **kwargs: Any) -> Array:
    rank = x.ndim - 2
    return weigh(
        layer,
        params,
        _width(layer, x.shape[-1]),
        lambda weight: lax.conv_transpose(
            x,
            weight,
            layer.strides or (1,) * rank,
            layer.padding,
            dimension_numbers=_numbers(rank),
            precision=lax.Precision.HIGHEST,
        ),
    )


@apply.register(AvgPool)
@apply.register(SumPool)
def _(layer: Any, params: Any, x: Array, **kwargs: Any) -> Array:
    geometry = _geometry(layer, x)

    def window_sum(x: Array) -> Array:
        return lax.reduce_window(
            _padded(x, geometry),
            np.zeros((), x.dtype),
            lax.add,
            (1, *layer.window_shape, 1),
            (1, *[g.stride for g in geometry], 1),
            "VALID",
        )

    if isinstance(layer, SumPool):
        return window_sum(x)
    if layer.normalize_edges and layer.padding == "SAME":
        return window_sum(x) / window_sum(jnp.ones_like(x))
    return window_sum(x) / prod(layer.window_shape)


@apply.register
def _(layer: MaxPool, params: Any, x: Array, **kwargs: Any) -> Array:
    geometry = _geometry(layer, x)
    return reduce(jnp.maximum, _windows(_padded(x, geometry, -jnp.inf), geometry))


@apply.register
def _(layer: GlobalAvgPool, params: Any, x: Array, **kwargs: Any) -> Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))


@apply.register
def _(layer: GlobalSumPool, params: Any, x: Array, **kwargs: Any) -> Array:
    return jnp.sum(x, axis=tuple(range(1, x.ndim - 1)))


@apply.register
def _(layer: Flatten, params: Any, x: Array, **kwargs: Any) -> Array:
    return x.reshape(x.shape[0], -1)
