"""Duals of rectified monomials, xⁿ for x ≥ 0: arc-cosine kernels of order n (Cho & Saul 2009, eq. 3 and 4)."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import jax.numpy as jnp
from jax import Array

from ntk.analytic.dual.angle import Angle, arccos_of_gap, signed


@cache
def coefficients(n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Polynomials P, Q in c = cos θ, constant term first, with J_n(θ) = (π − θ) P(c) + sin θ Q(c).

    From dJ_n/dc = n² J_{n−1} (a covariance derivative differentiates both factors): P' = n² P_{n−1} and
    P + (1 − c²) Q' − c Q = n² (1 − c²) Q_{n−1}, solved from the highest power of c down; P_n and Q_n are of degree
    and parity n and n − 1.
    """
    if n == 0:
        return (1,), ()
    before_p, before_q = coefficients(n - 1)
    p = [Fraction(0)] + [Fraction(n * n * a, i + 1) for i, a in enumerate(before_p)]
    target = [Fraction(0)] * (n + 3)  # n² (1 − c²) Q_{n−1} − P, without the unknown constant of P
    for i, a in enumerate(before_q):
        target[i] += n * n * a
        target[i + 2] -= n * n * a
    for i, a in enumerate(p):
        target[i] -= a
    # Coefficient of c^m in (1 − c²) Q' − c Q: (m + 1) q_{m+1} − m q_{m−1}.
    q = [Fraction(0)] * (n + 2)
    for m in range(n, 0, -1):
        q[m - 1] = ((m + 1) * q[m + 1] - target[m]) / m
    p[0] = target[0] - q[1] if n % 2 == 0 else Fraction(0)
    return tuple(int(a) for a in p), tuple(int(a) for a in q[:n])


def rectified_moment(n: int, angle: Angle) -> Array:
    """E[u₊ⁿ v₊ⁿ] = (E u² E v²)^(n/2) J_n(θ) / 2π."""
    folded = arccos_of_gap(angle.gap)
    rest = jnp.where(angle.cos < 0, folded, math.pi - folded)  # π − θ
    cos = signed(1 - angle.gap, angle.cos)
    sin = jnp.sqrt(angle.gap) * jnp.sqrt(2 - angle.gap)
    p, q = coefficients(n)
    total = rest * _evaluate(p, cos) + (sin * _evaluate(q, cos) if q else 0)
    return angle.scale**n * total / (2 * math.pi)


def _evaluate(polynomial: tuple[int, ...], x: Array) -> Array:
    total = jnp.full_like(x, float(polynomial[-1]))
    for a in polynomial[-2::-1]:
        total = total * x + float(a)
    return total
