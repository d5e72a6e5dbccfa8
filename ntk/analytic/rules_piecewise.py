"""Propagation through piecewise linear and piecewise polynomial nonlinearities: the arc-cosine family."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import singledispatch

import jax.numpy as jnp
from jax import Array

from ntk.analytic.dual.angle import angle, arccos_of_gap, doubtful_gap
from ntk.analytic.dual.arccosine import abs_moment, abs_residual, mixed_residual, sign_moment
from ntk.analytic.dual.rectified import rectified_moment
from ntk.analytic.nonlinearity import own_covariances, resynchronised, settled
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance, Residual
from ntk.stax.elementwise import ABRelu, Abs, LeakyRelu, RectifiedMonomial, Relu, Sign
from ntk.stax.layer import Layer


@singledispatch
def slopes(layer: Layer) -> tuple[float, float]:
    """(α, β) of a layer that computes α |x| + β x."""
    raise TypeError(f"{type(layer).__name__} is not piecewise linear")


slopes.register(Relu, lambda layer: (0.5, 0.5))
slopes.register(LeakyRelu, lambda layer: ((1 - layer.alpha) / 2, (1 + layer.alpha) / 2))
slopes.register(ABRelu, lambda layer: ((layer.b - layer.a) / 2, (layer.b + layer.a) / 2))
slopes.register(Abs, lambda layer: (1.0, 0.0))


def piecewise_linear(alpha: float, beta: float, state: Covariance) -> Covariance:
    """The state after α |x| + β x."""
    alpha2, beta2 = alpha**2, beta**2
    var1, var2 = state.variances()
    theta = angle(state.nngp, var1, var2, state.residual)

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        return alpha2 * abs_moment(angle(nngp, var1, var2)) + beta2 * nngp

    cov1, cov2 = own_covariances(state, dual, lambda var: (alpha2 + beta2) * var)
    residual = state.residual
    if residual is not None:
        residual = mixed_residual(abs_residual(residual, theta, var1, var2), residual, alpha2, beta2)
    return settled(
        replace(
            state,
            nngp=alpha2 * abs_moment(theta) + beta2 * state.nngp,
            ntk=None if state.ntk is None else state.ntk * (alpha2 * sign_moment(theta) + beta2),
            cov1=cov1,
            cov2=cov2,
            residual=residual,
            doubt=state.doubting(theta.gap < doubtful_gap(state.nngp.dtype)),
        )
    )


def _by_slopes(layer: Layer, state: Covariance) -> Covariance:
    return piecewise_linear(*slopes(layer), state)


for _kind in (Relu, LeakyRelu, ABRelu, Abs):
    propagate.register(_kind, _by_slopes)


@propagate.register
def _(layer: Sign, state: Covariance) -> Covariance:
    return _steps(state, 1.0, 0.0)


def _steps(state: Covariance, height: float, offset: float) -> Covariance:
    """The state after height · sgn x + offset, whose derivative is zero almost everywhere."""
    var1, var2 = state.variances()
    theta = angle(state.nngp, var1, var2, state.residual)
    h2, o2 = height**2, offset**2

    def moment(var1: Array, var2: Array, sign: Array) -> Array:
        # A zero vector has sign zero, one whose norm is not known (NaN) none.
        return h2 * jnp.where((var1 == 0) | (var2 == 0), 0, sign) + o2

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        return moment(var1, var2, sign_moment(angle(nngp, var1, var2)))

    cov1, cov2 = own_covariances(state, dual, lambda var: moment(var, var, jnp.ones_like(var)))
    residual = state.residual
    if residual is not None:
        # For unit variances 2 ∓ 2 (1 − 2θ'/π), without the cancellation; c = 1 suits any two rows of equal variance.
        live, folded = (var1 > 0) & (var2 > 0), theta.vanishing(arccos_of_gap(theta.gap))
        near, far = 4 / math.pi * folded, 4 - 4 / math.pi * folded
        positive = theta.cos >= 0
        lone = ((var1 > 0) | (var2 > 0)).astype(near.dtype)
        minus = h2 * jnp.where(live, jnp.where(positive, near, far), lone)
        plus = h2 * jnp.where(live, jnp.where(positive, far, near), lone) + 4 * o2
        delta = h2 * ((var1 > 0).astype(near.dtype) - (var2 > 0).astype(near.dtype))
        residual = Residual(jnp.ones_like(residual.scale), minus, plus, delta + jnp.zeros_like(minus))
    # The root in θ ~ √gap doubles the digits that are lost when another such layer follows.
    return settled(
        replace(
            state,
            nngp=moment(var1, var2, sign_moment(theta)),
            ntk=None,
            cov1=cov1,
            cov2=cov2,
            residual=residual,
            doubt=state.doubting(theta.gap < 10 * doubtful_gap(state.nngp.dtype)),
        )
    )


@propagate.register
def _(layer: RectifiedMonomial, state: Covariance) -> Covariance:
    n = layer.degree
    if n == 0:
        return _steps(state, 0.5, 0.5)
    if n == 1:
        return piecewise_linear(0.5, 0.5, state)
    var1, var2 = state.variances()
    theta = angle(state.nngp, var1, var2, state.residual)

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        return rectified_moment(n, angle(nngp, var1, var2))

    half_moment = math.prod(range(2 * n - 1, 0, -2)) / 2
    cov1, cov2 = own_covariances(state, dual, lambda var: half_moment * var**n)
    slope = n * n * rectified_moment(n - 1, theta)
    return settled(
        resynchronised(
            state,
            replace(
                state,
                nngp=rectified_moment(n, theta),
                ntk=None if state.ntk is None else state.ntk * slope,
                cov1=cov1,
                cov2=cov2,
            ),
        )
    )
