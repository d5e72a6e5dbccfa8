"""Propagation through nonlinearities: K' = E[σ(u) σ(v)], T' = T · E[σ'(u) σ'(v)]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.dual import arcsine
from ntk.analytic.dual.angle import angle, doubtful_gap
from ntk.analytic.dual.arccosine import abs_moment, abs_residual, mixed_residual, sign_moment
from ntk.analytic.inputs import with_diagonal
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance, Residual, diagonal, expand
from ntk.stax.elementwise import ABRelu, Abs, Erf, LeakyRelu, Relu
from ntk.stax.layer import Layer

Dual = Callable[[Array, Array, Array], Array]


@singledispatch
def slopes(layer: Layer) -> tuple[float, float]:
    """(α, β) of a layer that computes α |x| + β x."""
    raise TypeError(f"{type(layer).__name__} is not piecewise linear")


slopes.register(Relu, lambda layer: (0.5, 0.5))
slopes.register(LeakyRelu, lambda layer: ((1 - layer.alpha) / 2, (1 + layer.alpha) / 2))
slopes.register(ABRelu, lambda layer: ((layer.b - layer.a) / 2, (layer.b + layer.a) / 2))
slopes.register(Abs, lambda layer: (1.0, 0.0))


def settled(state: Covariance) -> Covariance:
    """`state`, computed before anything that follows: XLA would fuse a nonlinearity into each of its consumers, every
    layer above and every point of a filter, and compute it once for each of them."""
    return lax.optimization_barrier(state)


def own_covariances(state: Covariance, dual: Dual, variance: Callable[[Array], Array]) -> tuple[Array, Array]:
    """cov1 and cov2 after a nonlinearity: equal positions by the exact `variance`, others by the `dual`."""
    if not state.full:
        return variance(state.cov1), variance(state.cov2)
    rank = len(state.spatial)

    def after(cov: Array) -> Array:
        var = diagonal(cov, rank)
        return with_diagonal(dual(cov, expand(var, rank, 1), expand(var, rank, 0)), variance(var), rank)

    return after(state.cov1), after(state.cov2)


def _piecewise_linear(layer: Layer, state: Covariance) -> Covariance:
    alpha, beta = slopes(layer)
    alpha2, beta2 = alpha**2, beta**2
    var1, var2 = state.variances()
    theta = angle(state.nngp, var1, var2, state.residual)

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        return alpha2 * abs_moment(angle(nngp, var1, var2)) + beta2 * nngp

    cov1, cov2 = own_covariances(state, dual, lambda var: (alpha2 + beta2) * var)
    residual = state.residual
    if residual is not None:
        residual = mixed_residual(abs_residual(residual, theta, var1, var2), residual, alpha2, beta2)
    return settled(replace(
        state,
        nngp=alpha2 * abs_moment(theta) + beta2 * state.nngp,
        ntk=None if state.ntk is None else state.ntk * (alpha2 * sign_moment(theta) + beta2),
        cov1=cov1, cov2=cov2, residual=residual,
        doubt=state.doubting(theta.gap < doubtful_gap(state.nngp.dtype)),
    ))


for _kind in (Relu, LeakyRelu, ABRelu, Abs):
    propagate.register(_kind, _piecewise_linear)


def resynchronised(before: Covariance, nngp: Array, cov1: Array, cov2: Array) -> Residual | None:
    """The residuals of a state whose covariances were found directly: by cancellation, but exactly zero for pairs of
    positions that were equal."""
    if before.residual is None:
        return None
    scale = before.residual.scale
    rank = len(before.spatial) if before.full else 0
    a = (expand(diagonal(cov1, rank), rank, 1) if rank else cov1) / scale
    b = (expand(diagonal(cov2, rank), rank, 0) if rank else cov2) * scale
    equal = (before.residual.minus == 0) & (before.residual.delta == 0) & (scale == 1)
    minus = jnp.where(equal, 0, jnp.maximum(a + b - 2 * nngp, 0))
    return Residual(scale, minus, jnp.maximum(a + b + 2 * nngp, 0), jnp.where(equal, 0, a - b))


@propagate.register
def _(layer: Erf, state: Covariance) -> Covariance:
    b2, a2, c2 = layer.b**2, layer.a**2, layer.c**2
    var1, var2 = state.variances()
    det = None
    if state.residual is not None:
        r = state.residual
        det = b2 * b2 * jnp.maximum(r.minus * r.plus - r.delta**2, 0) / 4
    value, slope, ratio = arcsine.erf_moments(b2 * state.nngp, b2 * var1, b2 * var2, det)
    nngp = a2 * value + c2

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        return a2 * arcsine.erf_moments(b2 * nngp, b2 * var1, b2 * var2, None)[0] + c2

    cov1, cov2 = own_covariances(state, dual, lambda var: a2 * arcsine.erf_variance(b2 * var) + c2)
    return settled(replace(
        state, nngp=nngp, ntk=None if state.ntk is None else state.ntk * (a2 * b2 * slope), cov1=cov1, cov2=cov2,
        residual=resynchronised(state, nngp, cov1, cov2),
        doubt=state.doubting(ratio < doubtful_gap(state.nngp.dtype)),
    ))
