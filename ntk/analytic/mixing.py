"""Linear maps of positions: how covariances and residuals follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.state import Covariance, Residual, diagonal


def remade(before: Covariance, after: Covariance) -> Covariance:
    """`after` with residuals found from its covariances, where a layer mixed the positions of `before`.

    Residuals do not pass through such a layer pair by pair: they are found by cancellation, but are exactly zero where
    the inputs were equal at every position.
    """
    r = before.residual
    if r is None:
        return after
    rank = len(before.spatial)
    minus, delta = (diagonal(a, rank) if before.full else a for a in (r.minus, r.delta))
    equal = jnp.all((minus == 0) & (delta == 0), axis=tuple(range(rank))) & (r.scale == 1)
    # Equal inputs have one covariance, up to the order of summation.
    after = replace(
        after, nngp=jnp.where(equal, after.cov1, after.nngp), cov2=jnp.where(equal, after.cov1, after.cov2)
    )
    var1, var2 = after.variances()
    return replace(
        after,
        residual=Residual(
            jnp.ones_like(r.scale),
            jnp.maximum(var1 + var2 - 2 * after.nngp, 0),
            jnp.maximum(var1 + var2 + 2 * after.nngp, 0),
            var1 - var2 + 0 * after.nngp,
        ),
    )


def grouped(k: Array, axes: tuple[int, ...]) -> Array:
    """(h, h', w, w', …, pairs) → (P, P', others, pairs): the spatial `axes` as one, those of x1 before those of x2."""
    sizes = [prod(k.shape[2 * axis + side] for axis in axes) for side in (0, 1)]
    places = [2 * axis + side for side in (0, 1) for axis in axes]
    others = [axis for axis in range(k.ndim) if axis not in places]
    return jnp.transpose(k, (*places, *others)).reshape(*sizes, *(k.shape[axis] for axis in others))


def ungrouped(k: Array, axes: tuple[int, ...], sizes: tuple[int, ...]) -> Array:
    """The inverse of `grouped`; sizes: those of the spatial `axes`."""
    count = len(axes)
    k = k.reshape(*sizes, *sizes, *k.shape[2:])
    places = [2 * axis + side for side in (0, 1) for axis in axes]
    return jnp.moveaxis(k, range(2 * count), places)


def sandwich(k: Array, left: Array, right: Array) -> Array:
    """Σ left[p, r] k[r, s] right[q, s], each with trailing axes that are broadcast."""
    half = jnp.einsum("pr...,rs...->ps...", left, k, precision=lax.Precision.HIGHEST)
    return jnp.einsum("ps...,qs...->pq...", half, right, precision=lax.Precision.HIGHEST)


def on_both_sides(f: Callable[[Array], Array], k: Array, rank: int, full: bool) -> Array:
    """A map f: (n, \\*spatial, 1) → (n, \\*new spatial, 1) of positions applied to the positions of x1 and to those of
    x2; to equal positions alone where k is not `full`."""
    if not full:
        pairs = k.ndim - rank
        k = _on_last(f, jnp.moveaxis(k, range(rank), range(-rank, 0)), rank)  # (pairs, new)
        return jnp.moveaxis(k, range(pairs), range(-pairs, 0))
    pairs = k.ndim - 2 * rank
    k = _on_last(f, jnp.moveaxis(k, range(0, 2 * rank, 2), range(-rank, 0)), rank)  # (h', w', pairs, new)
    k = _on_last(f, jnp.moveaxis(k, range(rank), range(-rank, 0)), rank)  # (pairs, new, new')
    new = (k.ndim - pairs) // 2
    order = [pairs + side * new + axis for axis in range(new) for side in (0, 1)]
    return jnp.transpose(k, (*order, *range(pairs)))


def _on_last(f: Callable[[Array], Array], k: Array, rank: int) -> Array:
    lead, spatial = k.shape[: k.ndim - rank], k.shape[k.ndim - rank :]
    after = f(k.reshape(-1, *spatial, 1))
    return after.reshape(*lead, *after.shape[1:-1])
