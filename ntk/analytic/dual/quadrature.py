"""Duals by Gauss–Hermite quadrature, for functions without a closed form."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from scipy.special import roots_hermitenorm

from ntk.analytic.dual.angle import inverse_root, tiny
from ntk.analytic.dual.smooth import Dual, Moments


def gauss_hermite(fn: Callable[[Array], Array], df: Callable[[Array], Array] | None, deg: int) -> Dual:
    """E fn(u) fn(v) and E fn'(u) fn'(v) by deg × deg points.

    u = √var1 (cos φ x + sin φ y), v = √var2 (cos φ x − sin φ y) with independent normal x, y and cos 2φ the
    correlation: symmetric in u and v (unlike a Cholesky factor), and a plain deg-point rule where u ∝ v.
    """
    # NumPy's rule overflows from some 300 points on.
    nodes, weights = roots_hermitenorm(deg)
    weights = weights / weights.sum()

    def derivative(x: Array) -> Array:
        return jax.jvp(fn, (x,), (jnp.ones_like(x),))[1]

    slope = df or derivative

    def dual(nngp: Array, var1: Array, var2: Array, det: Array | None) -> Moments:
        dtype, floor = nngp.dtype, tiny(nngp.dtype)
        inverse1, inverse2 = inverse_root(var1), inverse_root(var2)
        root1, root2 = var1 * inverse1, var2 * inverse2
        correlation = jnp.clip(nngp * inverse1 * inverse2, -1, 1)
        gap = 1 - jnp.abs(correlation)
        if det is not None:
            exact = det * (inverse1 * inverse2) ** 2 / (1 + jnp.abs(correlation))
            gap = jnp.where(jnp.abs(correlation) < 0.5, gap, exact)
        small, large = jnp.sqrt(jnp.maximum(gap, floor) / 2), jnp.sqrt(1 - gap / 2)
        cos, sin = jnp.where(correlation >= 0, large, small), jnp.where(correlation >= 0, small, large)
        points = jnp.asarray(nodes, dtype)
        mass = jnp.asarray(weights, dtype)

        def add(step: Array, total: Moments) -> Moments:
            i, j = step // deg, step % deg
            x, y, w = points[i] * cos, points[j] * sin, mass[i] * mass[j]
            u, v = root1 * (x + y), root2 * (x - y)
            return total[0] + w * fn(u) * fn(v), total[1] + w * slope(u) * slope(v)

        zero = jnp.zeros(jnp.broadcast_shapes(nngp.shape, var1.shape, var2.shape), dtype)
        value, tangent = lax.fori_loop(0, deg * deg, add, (zero, zero))
        # The roots hide how the moment begins to grow where a variance is zero, and nngp with it.
        return value + jnp.where((inverse1 > 0) & (inverse2 > 0), 0, nngp * tangent), tangent

    return dual
