"""Propagation through smooth nonlinearities: K' = E[σ(u) σ(v)], T' = T · E[σ'(u) σ'(v)]."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import singledispatch
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntk.analytic.dual import arcsine, smooth
from ntk.analytic.dual.angle import inverse_root
from ntk.analytic.dual.quadrature import gauss_hermite
from ntk.analytic.nonlinearity import determinant, own_covariances, resynchronised, settled
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance
from ntk.errors import ArchitectureError
from ntk.finite.functions import SIGMOID_SCALE, by_name, hermite_coefficients
from ntk.stax.elementwise import (
    Cos,
    Elementwise,
    ElementwiseNumerical,
    Erf,
    Exp,
    ExpNormalized,
    Gabor,
    Gaussian,
    Gelu,
    Hermite,
    Monomial,
    Nonlinearity,
    Polynomial,
    Rbf,
    Sigmoid_like,
    Sin,
)


@singledispatch
def dual_of(layer: Nonlinearity) -> smooth.Dual:
    """The dual moments of a smooth nonlinearity."""
    raise ArchitectureError(f"{type(layer).__name__} has no infinite-width kernel")


dual_of.register(Gelu, lambda layer: smooth.gelu)
dual_of.register(Gabor, lambda layer: smooth.gabor)
dual_of.register(Sin, lambda layer: smooth.sine_wave(layer.a, layer.b, layer.c))
dual_of.register(Cos, lambda layer: smooth.sine_wave(layer.a, layer.b, layer.c + math.pi / 2))
dual_of.register(Rbf, lambda layer: smooth.sine_wave(math.sqrt(2), math.sqrt(2 * layer.gamma), math.pi / 4))
dual_of.register(Exp, lambda layer: smooth.exponential(layer.a, layer.b))
dual_of.register(Gaussian, lambda layer: smooth.gaussian(layer.a, layer.b))
dual_of.register(Polynomial, lambda layer: smooth.polynomial(layer.coef))
dual_of.register(Monomial, lambda layer: smooth.polynomial((0.0,) * layer.degree + (1.0,)))
dual_of.register(Hermite, lambda layer: smooth.polynomial(hermite_coefficients(layer.degree)))
dual_of.register(ElementwiseNumerical, lambda layer: gauss_hermite(by_name(layer.fn), layer.df, layer.deg))


@dual_of.register
def _(layer: Elementwise) -> smooth.Dual:
    if layer.nngp_fn is None:
        raise ArchitectureError(
            "Elementwise: nngp_fn is needed for the kernel. hint: ElementwiseNumerical integrates "
            "numerically, ntk.monte_carlo_kernel_fn samples finite networks"
        )
    return smooth.user_function(layer.nngp_fn, layer.d_nngp_fn)


@singledispatch
def unsure(layer: Any, nngp: Array, var1: Array, var2: Array) -> Array:
    """Where rounding in the covariances would show in the duals of `layer`."""
    return jnp.zeros(nngp.shape, bool)


unsure.register(Gelu, lambda layer, k, v1, v2: smooth.steep(k, v1, v2))
unsure.register(ElementwiseNumerical, lambda layer, k, v1, v2: smooth.steep(k, v1, v2))
unsure.register(Sin, lambda layer, k, v1, v2: smooth.unresolved(k, v1, v2, layer.b**2))
unsure.register(Cos, lambda layer, k, v1, v2: smooth.unresolved(k, v1, v2, layer.b**2))
unsure.register(Rbf, lambda layer, k, v1, v2: smooth.unresolved(k, v1, v2, 2 * layer.gamma))
unsure.register(Gaussian, lambda layer, k, v1, v2: smooth.unresolved(k, v1, v2, 2 * abs(layer.b)))
unsure.register(Gabor, lambda layer, k, v1, v2: smooth.unresolved(k, v1, v2, 2.0))


@propagate.register(Nonlinearity)
def _smooth(layer: Any, state: Covariance) -> Covariance:
    dual = dual_of(layer)
    var1, var2 = state.variances()
    nngp, slope = dual(state.nngp, var1, var2, determinant(state))
    cov1, cov2 = own_covariances(
        state, lambda k, v1, v2: dual(k, v1, v2, None)[0], lambda v: dual(v, v, v, jnp.zeros_like(v))[0]
    )
    return settled(
        resynchronised(
            state,
            replace(
                state,
                nngp=nngp,
                ntk=None if state.ntk is None else state.ntk * slope,
                cov1=cov1,
                cov2=cov2,
                doubt=state.doubting(unsure(layer, state.nngp, var1, var2)),
            ),
        )
    )


def _erf(a: float, b: float, c: float, state: Covariance) -> Covariance:
    a2, b2, c2 = a * a, b * b, c * c
    var1, var2 = state.variances()
    det = determinant(state)
    det = None if det is None else b2 * b2 * det
    value, slope, ratio = arcsine.erf_moments(b2 * state.nngp, b2 * var1, b2 * var2, det)

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        return a2 * arcsine.erf_moments(b2 * nngp, b2 * var1, b2 * var2, None)[0] + c2

    cov1, cov2 = own_covariances(state, dual, lambda var: a2 * arcsine.erf_variance(b2 * var) + c2)
    return settled(
        resynchronised(
            state,
            replace(
                state,
                nngp=a2 * value + c2,
                ntk=None if state.ntk is None else state.ntk * (a2 * b2 * slope),
                cov1=cov1,
                cov2=cov2,
                doubt=state.doubting(ratio < smooth.noise(state.nngp.dtype)),
            ),
        )
    )


propagate.register(Erf, lambda layer, state: _erf(layer.a, layer.b, layer.c, state))
propagate.register(Sigmoid_like, lambda layer, state: _erf(0.5, 1 / SIGMOID_SCALE, 0.5, state))


@propagate.register
def _(layer: ExpNormalized, state: Covariance) -> Covariance:
    var1, var2 = state.variances()

    def factor(nngp: Array, var1: Array, var2: Array) -> tuple[Array, Array]:
        inverse1, inverse2 = inverse_root(var1), inverse_root(var2)
        cos = jnp.clip(nngp * (inverse1 * inverse2), -1, 1)
        return (var1 * inverse1) * (var2 * inverse2), jnp.exp(layer.gamma * (cos + layer.shift))

    def dual(nngp: Array, var1: Array, var2: Array) -> Array:
        root, growth = factor(nngp, var1, var2)
        return root * growth

    top = math.exp(layer.gamma * (1 + layer.shift))
    cov1, cov2 = own_covariances(state, dual, lambda var: top * var)
    ntk = None if state.ntk is None else layer.gamma * state.ntk * factor(state.nngp, var1, var2)[1]
    return settled(
        resynchronised(
            state, replace(state, nngp=dual(state.nngp, var1, var2), ntk=ntk, cov1=cov1, cov2=cov2)
        )
    )
