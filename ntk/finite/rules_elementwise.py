"""Nonlinearities at finite width: the function itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erf

from ntk.errors import ArchitectureError
from ntk.finite.functions import SIGMOID_SCALE, by_name, hermite_coefficients
from ntk.finite.network import apply
from ntk.stax.elementwise import (
    ABRelu,
    Abs,
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
    LeakyRelu,
    Monomial,
    Nonlinearity,
    Polynomial,
    Rbf,
    RectifiedMonomial,
    Relu,
    Sigmoid_like,
    Sign,
    Sin,
)

Function = Callable[[Array], Array]


@singledispatch
def function(layer: Nonlinearity) -> Function:
    """The function that a nonlinearity applies to every entry."""
    raise ArchitectureError(f"{type(layer).__name__} has no finite-width network")


@function.register
def _(layer: Elementwise) -> Function:
    if layer.fn is None:
        raise ArchitectureError("Elementwise: fn is needed for finite networks")
    return layer.fn


def _polynomial(coef: tuple[float, ...]) -> Function:
    return lambda x: jnp.polyval(jnp.asarray(coef[::-1], x.dtype), x)


function.register(Relu, lambda layer: lambda x: jnp.maximum(x, 0))
function.register(LeakyRelu, lambda layer: lambda x: layer.alpha * jnp.minimum(x, 0) + jnp.maximum(x, 0))
function.register(ABRelu, lambda layer: lambda x: layer.a * jnp.minimum(x, 0) + layer.b * jnp.maximum(x, 0))
function.register(Abs, lambda layer: jnp.abs)
function.register(Sign, lambda layer: jnp.sign)
function.register(Erf, lambda layer: lambda x: layer.a * erf(layer.b * x) + layer.c)
function.register(Sigmoid_like, lambda layer: lambda x: 0.5 * erf(x / SIGMOID_SCALE) + 0.5)
function.register(Gelu, lambda layer: lambda x: jax.nn.gelu(x, approximate=layer.approximate))
function.register(Sin, lambda layer: lambda x: layer.a * jnp.sin(layer.b * x + layer.c))
function.register(Cos, lambda layer: lambda x: layer.a * jnp.cos(layer.b * x + layer.c))
function.register(
    Rbf, lambda layer: lambda x: math.sqrt(2) * jnp.sin(math.sqrt(2 * layer.gamma) * x + math.pi / 4)
)
function.register(Exp, lambda layer: lambda x: layer.a * jnp.exp(layer.b * x))
function.register(Gaussian, lambda layer: lambda x: layer.a * jnp.exp(layer.b * x * x))
function.register(Gabor, lambda layer: lambda x: jnp.exp(-x * x) * jnp.sin(x))
function.register(Hermite, lambda layer: _polynomial(hermite_coefficients(layer.degree)))
function.register(Monomial, lambda layer: lambda x: x**layer.degree)
function.register(RectifiedMonomial, lambda layer: lambda x: jnp.where(x >= 0, x**layer.degree, 0))
function.register(Polynomial, lambda layer: _polynomial(layer.coef))
function.register(ElementwiseNumerical, lambda layer: by_name(layer.fn))


@apply.register(Nonlinearity)
def _elementwise(layer: Any, params: Any, x: Array, **kwargs: Any) -> Array:
    return function(layer)(x)


@apply.register
def _(layer: ExpNormalized, params: Any, x: Array, **kwargs: Any) -> Array:
    """s Σ √aₙ Heₙ(x/s) / √n! for exp(γ (ρ + shift)) = Σ aₙ ρⁿ, s the root mean square of x over channels."""
    square = jnp.mean(x * x, axis=-1, keepdims=True)
    scale = jnp.sqrt(jnp.where(square > 0, square, 1))
    z = x / scale
    before, polynomial = jnp.zeros_like(z), jnp.ones_like(z)
    total = jnp.zeros_like(z)
    for n in range(40 + int(4 * layer.gamma)):
        weight = (
            math.exp(layer.gamma * layer.shift / 2) * layer.gamma ** (n / 2) / math.sqrt(math.factorial(n))
        )
        total = total + weight * polynomial
        # Orthonormal Hermite polynomials: √(n+1) hₙ₊₁ = z hₙ − √n hₙ₋₁.
        before, polynomial = polynomial, (z * polynomial - math.sqrt(n) * before) / math.sqrt(n + 1)
    return jnp.where(square > 0, scale * total, 0)
