"""Duals of α |x| + β x, the family of Relu, LeakyRelu, ABRelu and Abs.

With θ the angle of (u, v), folded to θ' = min(θ, π − θ), and S = √(E u² E v²) (Cho & Saul 2009, eq. 3 and 6, for the
even part; the odd part is linear and the two are uncorrelated):

    E |u| |v|       = S (2/π) (sin θ' + (π/2 − θ') |cos θ|) = S (|cos θ| + (2/π) (sin θ' − θ' cos θ'))
    E sgn u sgn v   = sgn(cos θ) (1 − 2 θ'/π)
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from ntk.analytic.dual.angle import Angle, arccos_of_gap, signed, tiny
from ntk.analytic.state import Residual


def abs_moment(angle: Angle) -> Array:
    """E |u| |v|."""
    return angle.scale * ((1 - angle.gap) + (2 / math.pi) * angle.excess())


def sign_moment(angle: Angle) -> Array:
    """E sgn u sgn v."""
    return signed(1 - (2 / math.pi) * arccos_of_gap(angle.gap), angle.cos)


def abs_residual(residual: Residual, angle: Angle, var1: Array, var2: Array) -> Residual:
    """Residuals of (|u|, |v|), from those of (u, v) without cancellation.

    E(|u|/√c − √c |v|)² = (√a − √b)² + 2 √(ab) (1 − κ) with a = E u²/c, b = c E v², and
    1 − κ = (1 − |cos θ|) − (2/π) (sin θ' − θ' cos θ').
    """
    a, b = var1 / residual.scale, var2 * residual.scale
    floor = tiny(a.dtype)
    roots = jnp.sqrt(jnp.maximum(a, floor)) + jnp.sqrt(jnp.maximum(b, floor))
    difference = residual.delta / roots
    defect = angle.vanishing(angle.gap - (2 / math.pi) * angle.excess())
    minus = difference**2 + 2 * angle.scale * defect
    return Residual(residual.scale, minus, roots**2 - 2 * angle.scale * defect, residual.delta)


def mixed_residual(even: Residual, odd: Residual, alpha2: float, beta2: float) -> Residual:
    """Residuals of α |x| + β x from those of |x| and x, which are uncorrelated."""
    return Residual(
        even.scale,
        alpha2 * even.minus + beta2 * odd.minus,
        alpha2 * even.plus + beta2 * odd.plus,
        (alpha2 + beta2) * odd.delta,
    )
