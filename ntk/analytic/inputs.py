"""The state at the input layer: K(x, x') = x · x' / d, T = 0."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.state import Covariance, Residual, diagonal, expand


def outer(x1: Array, x2: Array, *, full: bool, wants_ntk: bool, doubting: bool = False) -> Covariance:
    """Every row of x1 (n1, \\*spatial, channels) with every row of x2 (n2, \\*spatial, channels)."""
    rank = x1.ndim - 2
    shape = x1.shape[1:]
    nngp = _products(x1, x2, rank, full)
    if full:
        cov1 = _self_products(x1, rank)[..., :, None]
        cov2 = _self_products(x2, rank)[..., None, :]
    else:
        cov1 = jnp.moveaxis(_mean_square(x1), 0, -1)[..., :, None]
        cov2 = jnp.moveaxis(_mean_square(x2), 0, -1)[..., None, :]
    doubt = jnp.zeros(nngp.shape[-2:], x1.dtype if rank else bool) if doubting else None
    return Covariance(nngp, None, cov1, cov2, None, doubt, shape, full and rank > 0, True, False, wants_ntk)


def paired(x1: Array, x2: Array, *, full: bool, wants_ntk: bool, itself: bool = False) -> Covariance:
    """Row i of x1 with row i of x2, both (n, \\*spatial, channels), with residuals from differences of the rows."""
    rank = x1.ndim - 2
    shape = x1.shape[1:]
    if itself and not (full and rank):
        square = jnp.moveaxis(_mean_square(x1), 0, -1)
        zero, one = jnp.zeros_like(square), jnp.ones(x1.shape[0], x1.dtype)
        same = Residual(one, zero, 4 * square, zero)
        return Covariance(square, None, square, square, same, None, shape, False, False, True, wants_ntk)
    axes = tuple(range(1, x1.ndim))
    square1, square2 = jnp.sum(x1 * x1, axis=axes), jnp.sum(x2 * x2, axis=axes)
    usable = (square1 > 0) & (square2 > 0)
    # Any scale is right, this one is best; it is no function of the inputs to be differentiated.
    scale = lax.stop_gradient(jnp.sqrt(jnp.where(usable, square1, 1) / jnp.where(usable, square2, 1)))
    root = jnp.sqrt(scale).reshape(-1, *[1] * (rank + 1))
    u, v = jnp.moveaxis(x1 / root, 0, -2), jnp.moveaxis(x2 * root, 0, -2)  # (*spatial, n, channels)
    if full and rank:
        u, v = expand(u, rank, 1), expand(v, rank, 0)
        cov1, cov2 = _self_products(x1, rank), _self_products(x2, rank)
        nngp = _positions(x1, x2, rank)
    else:
        cov1, cov2 = jnp.moveaxis(_mean_square(x1), 0, -1), jnp.moveaxis(_mean_square(x2), 0, -1)
        nngp = jnp.moveaxis(jnp.mean(x1 * x2, axis=-1), 0, -1)
    residual = Residual(
        scale,
        jnp.mean((u - v) ** 2, axis=-1),
        jnp.mean((u + v) ** 2, axis=-1),
        jnp.mean((u - v) * (u + v), axis=-1),
    )
    return Covariance(
        nngp, None, cov1, cov2, residual, None, shape, full and rank > 0, False, itself, wants_ntk
    )


def _mean_square(x: Array) -> Array:
    return jnp.mean(x * x, axis=-1)


def _products(x1: Array, x2: Array, rank: int, full: bool) -> Array:
    """x1 · x2 / channels for all pairs: (n1, n2), (\\*spatial, n1, n2) or (h, h', w, w', …, n1, n2)."""
    # Scaled before the product, so that norms near the square root of the largest number do not overflow.
    root = x1.shape[-1] ** -0.5
    x1, x2 = x1 * root, x2 * root
    if not rank:
        return _dot(x1, x2, (((1,), (1,)), ((), ())))
    if not full:
        positions = tuple(range(1, rank + 1))
        return _dot(x1, x2, (((rank + 1,), (rank + 1,)), (positions, positions)))
    product = _dot(x1, x2, (((rank + 1,), (rank + 1,)), ((), ())))  # (n1, h, w, n2, h', w')
    order = [axis for i in range(1, rank + 1) for axis in (i, rank + 1 + i)]
    return jnp.transpose(product, (*order, 0, rank + 1))


def _positions(x1: Array, x2: Array, rank: int) -> Array:
    """(h, h', w, w', …, n): x1[i] at (h, w, …) times x2[i] at (h', w', …), / channels."""
    product = _dot(x1, x2 / x1.shape[-1], (((rank + 1,), (rank + 1,)), ((0,), (0,))))  # (n, h, w, h', w')
    order = [axis for i in range(1, rank + 1) for axis in (i, rank + i)]
    return jnp.transpose(product, (*order, 0))


def _self_products(x: Array, rank: int) -> Array:
    """`_positions` of x with itself, its equal positions the exact mean squares."""
    if not rank:
        return jnp.moveaxis(_mean_square(x), 0, -1)
    return with_diagonal(_positions(x, x, rank), jnp.moveaxis(_mean_square(x), 0, -1), rank)


def with_diagonal(full: Array, values: Array, rank: int) -> Array:
    """`full` with the entries at equal positions replaced by `values` (h, w, …, pairs)."""
    shape = full.shape
    same = jnp.ones((), bool)
    for axis in range(rank):
        n = shape[2 * axis]
        eye = jnp.eye(n, dtype=bool)
        same = same & eye.reshape([n if i in (2 * axis, 2 * axis + 1) else 1 for i in range(full.ndim)])
    return jnp.where(same, expand(values, rank, 1), full)


def _dot(a: Array, b: Array, dims: tuple) -> Array:
    return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)


__all__ = ["diagonal", "outer", "paired", "with_diagonal"]
