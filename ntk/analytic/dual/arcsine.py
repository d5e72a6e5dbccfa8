"""Duals of erf (Williams 1997, eq. 11; Lee et al. 2019, appendix C), stable for large variances.

With A = 1 + 2 E u², B = 1 + 2 E v² and D = A B − (2 E uv)² = 1 + 2 E u² + 2 E v² + 4 det:

    E erf(u) erf(v)   = (2/π) arcsin(2 E uv / √(A B))
    E erf'(u) erf'(v) = (4/π) / √D
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.dual.angle import arcsin


def erf_discriminant(nngp: Array, var1: Array, var2: Array, det: Array | None) -> tuple[Array, Array]:
    """D / (A B) and 1 / √(A B)."""
    # Once for each row and column, not for each pair.
    root1, root2 = lax.optimization_barrier((lax.rsqrt(1 + 2 * var1), lax.rsqrt(1 + 2 * var2)))
    if det is None:
        sine = 2 * nngp * root1 * root2
        # D ≥ 1 + 2 E u² + 2 E v² whatever rounding does to the determinant.
        floor = root1 * root1 + root2 * root2 - (root1 * root2) ** 2
        ratio = jnp.maximum((1 - sine) * (1 + sine), floor)
    else:
        ratio = (1 + 2 * var1 + 2 * var2 + 4 * det) * (root1 * root2) ** 2
    return ratio, root1 * root2


def erf_moments(nngp: Array, var1: Array, var2: Array, det: Array | None) -> tuple[Array, Array, Array]:
    """E erf(u) erf(v), E erf'(u) erf'(v), and D / (A B), small where precision is lost when `det` is None."""
    ratio, root = erf_discriminant(nngp, var1, var2, det)
    sine = jnp.clip(2 * nngp * root, -1, 1)
    value = (2 / math.pi) * arcsin(sine, ratio / (1 + jnp.abs(sine)))
    return value, (4 / math.pi) * root * lax.rsqrt(ratio), ratio


def erf_variance(var: Array) -> Array:
    """E erf(u)²."""
    return (2 / math.pi) * arcsin(2 * var / (1 + 2 * var), 1 / (1 + 2 * var))
