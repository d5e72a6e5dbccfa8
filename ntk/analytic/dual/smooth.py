"""Duals of smooth nonlinearities in closed form.

Every function takes nngp = E uv, var1 = E u², var2 = E v² and det = var1 · var2 − nngp² (known without cancellation, or
None) and returns E σ(u) σ(v) and E σ'(u) σ'(v) of the Gaussian pair (u, v). The second is the derivative of the first
by nngp (for any σ), which is where the formulae without a source of their own come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.dual.angle import arcsin

Moments = tuple[Array, Array]
Dual = Callable[[Array, Array, Array, Array | None], Moments]


def determinant(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Array:
    """E u² E v² − (E uv)², never negative."""
    return jnp.maximum(var1 * var2 - nngp * nngp, 0) if det is None else det


def gelu(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
    """x Φ(x). With h = E Φ(u) Φ(v) = ¼ + arcsin(nngp / √(A B)) / 2π, A = 1 + var1, B = 1 + var2, D = A B − nngp² and
    J = E φ(u) φ(v) = 1 / (2π √D), integration by parts gives

        E σσ   = nngp h + J (det + nngp² (1/A + 1/B))
        E σ'σ' = h + nngp J (1/A + 1/B + 1/D)

    (Tsuchida et al. 2021, proposition 3, in another form)."""
    det = determinant(nngp, var1, var2, det)
    a, b = 1 + var1, 1 + var2
    d = 1 + var1 + var2 + det
    sine = jnp.clip(nngp * lax.rsqrt(a) * lax.rsqrt(b), -1, 1)
    h = 0.25 + arcsin(sine, d / (a * b) / (1 + jnp.abs(sine))) / (2 * math.pi)
    j = lax.rsqrt(d) / (2 * math.pi)
    inverse = 1 / a + 1 / b
    return nngp * h + j * (det + nngp * nngp * inverse), h + nngp * j * (inverse + 1 / d)


def sine_wave(a: float, b: float, twice_cos_2c: float) -> Dual:
    """a sin(b x + c), given 2 cos 2c: E σσ = a²/2 (exp(−b² E(u−v)²/2) − cos 2c exp(−b² E(u+v)²/2))."""

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        b2 = b * b
        near = 0.5 * jnp.exp(-0.5 * b2 * jnp.maximum(var1 + var2 - 2 * nngp, 0))
        far = 0.25 * twice_cos_2c * jnp.exp(-0.5 * b2 * jnp.maximum(var1 + var2 + 2 * nngp, 0))
        return a * a * (near - far), a * a * b2 * (near + far)

    return dual


def exponential(a: float, b: float) -> Dual:
    """a exp(b x): E σσ = a² exp(b² (var1 + var2 + 2 nngp) / 2)."""

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        value = a * a * jnp.exp(0.5 * b * b * (var1 + var2 + 2 * nngp))
        return value, b * b * value

    return dual


def gaussian(a: float, b: float) -> Dual:
    """a exp(b x²): E σσ = a² / √D with D = 1 − 2b (var1 + var2) + 4b² det, E σ'σ' = 4 a² b² nngp / D^(3/2)."""

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        root = lax.rsqrt(1 - 2 * b * (var1 + var2) + 4 * b * b * determinant(nngp, var1, var2, det))
        return a * a * root, 4 * (a * b) ** 2 * nngp * root**3

    return dual


def gabor(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
    """exp(−x²) sin x: the dual of sin under the Gaussian tilted by exp(−u² − v²), whose covariance is
    [var + 2 det, nngp] / D with D = 1 + 2 var1 + 2 var2 + 4 det:

        E σσ = D^(−½) exp(−(var1 + var2 + 4 det) / 2D) sinh(nngp / D)
    """
    det = determinant(nngp, var1, var2, det)
    return _with_slope(_gabor_value, nngp, var1, var2, det)


def _gabor_value(nngp: Array, var1: Array, var2: Array, det: Array) -> Array:
    d = 1 + 2 * var1 + 2 * var2 + 4 * det
    # sinh stays below the exponential: nngp ≤ (var1 + var2) / 2.
    return lax.rsqrt(d) * jnp.exp(-0.5 * (var1 + var2 + 4 * det) / d) * jnp.sinh(nngp / d)


def _with_slope(value: Callable[..., Array], nngp: Array, var1: Array, var2: Array, det: Array) -> Moments:
    """`value` and its derivative by nngp at fixed variances, where d det = −2 nngp d nngp."""
    nngp, var1, var2, det = jnp.broadcast_arrays(nngp, var1, var2, det)
    return jax.jvp(lambda k, d: value(k, var1, var2, d), (nngp, det), (jnp.ones_like(nngp), -2 * nngp))


def polynomial(coef: tuple[float, ...]) -> Dual:
    """Σ cᵢ xⁱ: E σσ = Σ_r r! nngp^r A_r(var1) A_r(var2), A_r(v) = Σ_i cᵢ (i over r) (i − r − 1)!! v^((i − r)/2) over
    i − r even: the expansion in Hermite polynomials."""

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        value = sum(
            math.factorial(r) * nngp**r * _hermite(coef, r, var1) * _hermite(coef, r, var2)
            for r in range(len(coef))
        )
        slope = sum(
            r * math.factorial(r) * nngp ** (r - 1) * _hermite(coef, r, var1) * _hermite(coef, r, var2)
            for r in range(1, len(coef))
        )
        zero = jnp.zeros_like(nngp + var1 + var2)
        return value + zero, slope + zero

    return dual


def _hermite(coef: tuple[float, ...], r: int, var: Array) -> Array:
    total = jnp.zeros_like(var)
    for i in range(r, len(coef), 2):
        pairings = math.prod(range(i - r - 1, 0, -2))
        total = total + coef[i] * math.comb(i, r) * pairings * var ** ((i - r) // 2)
    return total


def user_function(nngp_fn: Callable[..., Array], d_nngp_fn: Callable[..., Array] | None) -> Dual:
    """A dual that a user wrote as a function of scalars (cov12, var1, var2)."""

    def over(fn: Callable[..., Array], *args: Array) -> Array:
        flat = [a.reshape(-1) for a in args]
        return jax.vmap(fn)(*flat).reshape(args[0].shape)

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        args = jnp.broadcast_arrays(nngp, var1, var2)
        slope = d_nngp_fn or jax.grad(nngp_fn)
        return over(nngp_fn, *args), over(slope, *args)

    return dual
