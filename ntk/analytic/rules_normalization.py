"""Propagation through layers that rescale activations."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.inputs import with_diagonal
from ntk.analytic.nonlinearity import resynchronised
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance, Residual, diagonal, expand
from ntk.errors import ArchitectureError
from ntk.stax.normalization import BatchNorm, Dropout, LayerNorm
from ntk.stax.signal import Signal, normalised_axes


@propagate.register
def _(layer: LayerNorm, state: Covariance) -> Covariance:
    """K / √((V₁ + ε)(V₂ + ε)), V the variance averaged over the normalised positions."""
    rank = len(state.spatial)
    axes = normalised_axes(layer, Signal(state.shape))

    def inverse(cov: Array) -> Array:
        var = diagonal(cov, rank) if state.full else cov
        square = jnp.mean(var, axis=axes, keepdims=True) + layer.eps
        # A zero vector stays as it is.
        return lax.rsqrt(jnp.where(square > jnp.finfo(var.dtype).tiny, square, 1))

    root1, root2 = inverse(state.cov1), inverse(state.cov2)

    def place(root: Array, side: int) -> Array:
        return expand(root, rank, side) if state.full else root

    factor = place(root1, 1) * place(root2, 0)
    after = replace(
        state,
        nngp=state.nngp * factor,
        ntk=None if state.ntk is None else state.ntk * factor,
        cov1=state.cov1 * place(root1, 1) * place(root1, 0),
        cov2=state.cov2 * place(root2, 1) * place(root2, 0),
    )
    if state.residual is None:
        return after
    if len(axes) < rank:
        return resynchronised(state, after)
    # u/(s₁√c') − √c' v/s₂ = (u/√c − √c v) / √(s₁ s₂) for c' = c s₂/s₁.
    r = state.residual.map(lambda a: a * factor)
    ratio = (root1 / root2).reshape(state.residual.scale.shape)
    return replace(after, residual=replace(r, scale=state.residual.scale * ratio))


@propagate.register
def _(layer: BatchNorm, state: Covariance) -> Covariance:
    """Pairs of rows do not know their batches: `ntk.analytic.batches` goes around this rule."""
    raise ArchitectureError("BatchNorm is no function of pairs of rows. hint: kernel_fn takes whole batches")


@propagate.register
def _(layer: Dropout, state: Covariance) -> Covariance:
    """Variances grow by 1 / rate; the masks of different inputs and positions are independent."""
    if layer.mode == "test" or layer.rate == 1:
        return state
    rank = len(state.spatial)

    def boosted(cov: Array) -> Array:
        return with_diagonal(cov, diagonal(cov, rank) / layer.rate, rank) if state.full else cov / layer.rate

    after = replace(state, cov1=boosted(state.cov1), cov2=boosted(state.cov2))
    if state.itself:
        after = replace(
            after, nngp=boosted(state.nngp), ntk=None if state.ntk is None else boosted(state.ntk)
        )
    r = state.residual
    if r is None:
        return after
    if state.itself:
        return resynchronised(state, after)
    var1, var2 = after.variances()
    extra = (1 - layer.rate) * (var1 / r.scale + var2 * r.scale)
    return replace(after, residual=Residual(r.scale, r.minus + extra, r.plus + extra, r.delta / layer.rate))
