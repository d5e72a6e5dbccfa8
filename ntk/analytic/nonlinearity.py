"""What all nonlinearities share: the covariances of each input with itself, residuals, and where fusion stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.inputs import with_diagonal
from ntk.analytic.state import Covariance, Residual, diagonal, expand

Dual = Callable[[Array, Array, Array], Array]


def settled(state: Covariance) -> Covariance:
    """`state`, with what several consumers read computed once, before them: XLA would fuse a nonlinearity into each of
    its consumers and compute it once for each.

    For inputs with positions that is the whole state: every point of a filter is a consumer. For vectors all layers are
    best fused into one loop over the pairs, which touches memory once; only the variances, one for each row and each
    column, must not be computed anew for every pair.
    """
    if state.spatial:
        return lax.optimization_barrier(state)
    cov1, cov2 = lax.optimization_barrier((state.cov1, state.cov2))
    return replace(state, cov1=cov1, cov2=cov2)


def own_covariances(state: Covariance, dual: Dual, variance: Callable[[Array], Array]) -> tuple[Array, Array]:
    """cov1 and cov2 after a nonlinearity: equal positions by the exact `variance`, others by the `dual`."""
    if not state.full:
        return variance(state.cov1), variance(state.cov2)
    rank = len(state.spatial)

    def after(cov: Array) -> Array:
        var = diagonal(cov, rank)
        return with_diagonal(dual(cov, expand(var, rank, 1), expand(var, rank, 0)), variance(var), rank)

    return after(state.cov1), after(state.cov2)


def determinant(state: Covariance) -> Array | None:
    """E u² E v² − (E uv)² where residuals are known: from them or directly, whichever difference has smaller terms."""
    r = state.residual
    if r is None:
        return None
    var1, var2 = state.variances()
    product, square, direct = r.minus * r.plus, r.delta**2, var1 * var2
    return jnp.maximum(
        jnp.where(product + square < 4 * direct, (product - square) / 4, direct - state.nngp**2), 0
    )


def resynchronised(before: Covariance, after: Covariance) -> Covariance:
    """`after` with residuals found from its covariances: by cancellation, but exactly zero for positions that were
    equal before."""
    if before.residual is None:
        return after
    var1, var2 = after.variances()
    scale = jnp.ones_like(before.residual.scale)
    equal = (before.residual.minus == 0) & (before.residual.delta == 0) & (before.residual.scale == 1)
    minus = jnp.where(equal, 0, jnp.maximum(var1 + var2 - 2 * after.nngp, 0))
    delta = jnp.where(equal, 0, var1 - var2)
    return replace(
        after, residual=Residual(scale, minus, jnp.maximum(var1 + var2 + 2 * after.nngp, 0), delta)
    )
