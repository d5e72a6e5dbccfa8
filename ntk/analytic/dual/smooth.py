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

from ntk.analytic.dual.angle import arcsin, doubtful_gap, signed, tiny

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
    # Once for each row and column, not for each pair.
    root1, root2 = lax.optimization_barrier((lax.rsqrt(1 + var1), lax.rsqrt(1 + var2)))
    root, inverse = root1 * root2, root1**2 + root2**2  # 1 / √(A B) and 1/A + 1/B
    d = 1 + var1 + var2 + det
    sine = jnp.clip(nngp * root, -1, 1)
    h = 0.25 + arcsin(sine, d * root**2 / (1 + jnp.abs(sine))) / (2 * math.pi)
    j = lax.rsqrt(d) / (2 * math.pi)
    return nngp * h + j * (det + nngp * nngp * inverse), h + nngp * j * (inverse + 1 / d)


def steep(nngp: Array, var1: Array, var2: Array) -> Array:
    """Whether variances are so large and a pair so nearly parallel that a sigmoid of it has a singular angle."""
    a, b = 1 + var1, 1 + var2
    return 1 + var1 + var2 + determinant(nngp, var1, var2, None) < doubtful_gap(nngp.dtype) * a * b


def sine_wave(a: float, b: float, c: float) -> Dual:
    """a sin(b x + c) = a (cos c sin bx + sin c cos bx), whose two parts are uncorrelated. With k = nngp:

        E sin bu sin bv = ½ sgn k e (1 − f),   E cos bu cos bv = ½ e (1 + f),
        e = exp(−b² E(u ∓ v)² / 2),   f = exp(−2 b² |k|)

    where the sign is that of k. Neither the small difference of two equal exponentials nor that of two large
    variances is ever taken."""
    odd, even = math.cos(c) ** 2, math.sin(c) ** 2

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        b2 = b * b
        near = 0.5 * jnp.exp(-0.5 * b2 * distance(nngp, var1, var2, det))
        fall = jnp.expm1(-2 * b2 * jnp.abs(nngp))
        sines, cosines = signed(-near * fall, nngp), near * (2 + fall)
        return a * a * (odd * sines + even * cosines), a * a * b2 * (odd * cosines + even * sines)

    return dual


@jax.custom_jvp
def distance(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Array:
    """E(u − v)² for nngp ≥ 0, E(u + v)² otherwise: var1 + var2 − 2 |nngp|. With `det` there is no cancellation:
    (√var1 − √var2)² + 2 det / (√(var1 var2) + |nngp|)."""
    if det is None:
        return jnp.maximum(var1 + var2 - 2 * jnp.abs(nngp), 0)
    floor = tiny(nngp.dtype)
    root1, root2 = jnp.sqrt(jnp.maximum(var1, floor)), jnp.sqrt(jnp.maximum(var2, floor))
    return ((var1 - var2) / (root1 + root2)) ** 2 + 2 * det / (root1 * root2 + jnp.abs(nngp))


@distance.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # That of var1 + var2 − 2 |nngp|, which is smooth where the roots above are not.
    slope, slope1, slope2, _ = tangents
    return distance(*primals), slope1 + slope2 - 2 * signed(slope, primals[0])


def noise(dtype: jnp.dtype) -> float:
    """The rounding of a quantity of order 1, over the relative error that a layer may add: 2e-5 or 1e-11."""
    return 4 * float(jnp.finfo(dtype).eps) / (1e-11 if jnp.dtype(dtype).itemsize >= 8 else 2e-5)


def unresolved(nngp: Array, var1: Array, var2: Array, scale: float) -> Array:
    """Whether rounding in nngp shows in a function of scale · `distance` that varies where this is of order 1."""
    rounding = scale * noise(nngp.dtype) * (var1 + var2)
    return rounding > 1 + scale * distance(nngp, var1, var2, None)


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
