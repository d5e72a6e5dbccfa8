"""Sums over windows of covariances, one spatial axis at a time.

A convolution shares its weights between positions and sums K[i + t, i' + t] over offsets t; a pooling sums
K[i + t, i' + t'] over both independently. In the full layout (h, h', w, w', …) both are sums of shifted slices.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.state import Covariance, Residual, expand
from ntk.stax.geometry import Axis


def _padded(k: Array, axes: tuple[Axis, ...], copies: int, interior: tuple[int, ...] | None = None) -> Array:
    """`k` with its spatial axes (each `copies` times) padded, and dilated by `interior`."""
    low_high = [(a.low, a.high) for a in axes for _ in range(copies)]
    rest = k.ndim - len(low_high)
    if any(a.circular for a in axes):
        return jnp.pad(k, low_high + [(0, 0)] * rest, mode="wrap")
    inside = [n for n in (interior or (0,) * len(axes)) for _ in range(copies)]
    config = [(low, high, n) for (low, high), n in zip(low_high, inside, strict=True)] + [(0, 0, 0)] * rest
    return lax.pad(k, jnp.zeros((), k.dtype), config)


def padded(state: Covariance, axes: tuple[Axis, ...], interior: tuple[int, ...] | None = None) -> Covariance:
    """The state of inputs padded (with zeros, or around where circular) and dilated with zeros."""
    copies = 2 if state.full else 1

    def pad(k: Array) -> Array:
        return _padded(k, axes, copies, interior)

    after = state.map(pad)
    r = state.residual
    if r is None or not state.full or axes[0].circular:
        return after
    # Where one of two positions lies outside, the residuals are the variance of the other.
    rank = len(axes)
    var1, var2 = state.variances()
    a = expand(_padded(jnp.squeeze(var1, tuple(range(1, 2 * rank, 2))) / r.scale, axes, 1, interior), rank, 1)
    b = expand(_padded(jnp.squeeze(var2, tuple(range(0, 2 * rank, 2))) * r.scale, axes, 1, interior), rank, 0)
    outside = pad(jnp.ones_like(state.nngp)) == 0
    padded_r = r.map(pad)
    return replace(
        after,
        residual=Residual(
            r.scale,
            padded_r.minus + jnp.where(outside, a + b, 0),
            padded_r.plus + jnp.where(outside, a + b, 0),
            padded_r.delta + jnp.where(outside, a - b, 0),
        ),
    )


def _slice(k: Array, axis: int, start: int, geometry: Axis) -> Array:
    return lax.slice_in_dim(k, start, start + (geometry.out - 1) * geometry.stride + 1, geometry.stride, axis)


def shared_sum(k: Array, axes: tuple[Axis, ...], full: bool) -> Array:
    """Σ_t K[i s + t, i' s + t] over the offsets of all axes, for `k` already padded."""
    for i, geometry in enumerate(axes):
        if full:
            k = reduce(
                add,
                [
                    _slice(_slice(k, 2 * i, t, geometry), 2 * i + 1, t, geometry)
                    for t in range(geometry.window)
                ],
            )
        else:
            k = reduce(add, [_slice(k, i, t, geometry) for t in range(geometry.window)])
    return k


def independent_sum(k: Array, axes: tuple[Axis, ...]) -> Array:
    """Σ_t Σ_t' K[i s + t, i' s + t'], for full `k` already padded."""
    for i, geometry in enumerate(axes):
        for axis in (2 * i, 2 * i + 1):
            k = reduce(add, [_slice(k, axis, t, geometry) for t in range(geometry.window)])
    return k


def window_counts(axes: tuple[Axis, ...], dtype: Any) -> list[Array]:
    """For every axis the number of positions inside the input that each window covers."""
    return [
        reduce(add, [_slice(_padded(jnp.ones(a.size, dtype), (a,), 1), 0, t, a) for t in range(a.window)])
        for a in axes
    ]
