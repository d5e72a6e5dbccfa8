"""Angles between Gaussian pre-activations, fast and without cancellation.

With c = cos θ folded to |c| and the *gap* s = 1 − |c|, the folded angle is arccos(1 − s) = √s P(s) with P analytic
for |s| < 2 and all its Taylor coefficients positive: a polynomial of degree 7 (float32) or 18 (float64) on [0, 1]
is within 1.6e-8 or 1.8e-17 relative of it, at a tenth of the cost of a library arccos on a CPU. In the same way
sin θ − θ cos θ = s √s Q(s). A caller that knows s exactly gets both to full relative precision down to θ = 0.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ntk.analytic.state import Residual

# Chebyshev fits, computed with 50 digits.
_ARCCOS = {
    4: (
        1.4142135437187673,
        0.11785343938986147,
        0.026470001757048382,
        0.008244196077236615,
        0.0013990023280396153,
        0.0034572624413695082,
        -0.0020781487321685902,
        0.0012370048531450308,
    ),
    8: (
        1.4142135623730951,
        0.117851130197744,
        0.02651650429613943,
        0.00789181667745193,
        0.0026854117624172135,
        0.000988690670743743,
        0.00038372780736599485,
        0.00015233061647741464,
        7.369031196873262e-05,
        -9.993002224643837e-06,
        0.00011594461454836023,
        -0.00021912011021719147,
        0.0003690021371351289,
        -0.00045330144326602575,
        0.00041989688547204503,
        -0.00028021034282589915,
        0.0001288106254574062,
        -3.64887502533415e-05,
        4.921467667228333e-06,
    ),
}
_EXCESS = {
    4: (
        0.9428090539586769,
        0.04713927958042267,
        0.007594096005087896,
        0.0016522815718634318,
        0.0007540276664730809,
        -0.00018679682334195405,
        0.00023804211565522655,
    ),
    8: (
        0.9428090415820634,
        0.04714045207908509,
        0.0075761440858472424,
        0.0017537369929468364,
        0.000488257583477138,
        0.0001520959052487506,
        5.124057808287701e-05,
        1.7535655724149018e-05,
        9.090045027740996e-06,
        -4.101227298183459e-06,
        1.4830662884887578e-05,
        -2.0731762750676468e-05,
        2.3760938263254444e-05,
        -1.8694133779466977e-05,
        1.0146519099585957e-05,
        -3.3353687453253804e-06,
        5.298648226603805e-07,
    ),
}
_ARCSIN = {
    4: (
        0.9999999957384342,
        0.16666787011719464,
        0.07494534269355964,
        0.045539009713168196,
        0.02390936359009257,
        0.04255359910635753,
    ),
    8: (
        1.0,
        0.1666666666666484,
        0.07500000000404858,
        0.044642856791215726,
        0.03038196027149515,
        0.02237173660319574,
        0.017359969965541983,
        0.013883027829435166,
        0.0121816790888421,
        0.006480855348779324,
        0.01964239671205795,
        -0.016384436448802192,
        0.032011340323281685,
    ),
}

#: Below these gaps the angle is in doubt when the gap comes from 1 − |nngp| / √(var1 var2). That quantity carries a
#: rounding error of about 4 ε, hence the angle √(2 s) one of about 4 ε / √(2 s), which is allowed to reach 1e-5
#: (float32) or 2e-11 (float64).
DOUBTFUL_GAP = {4: 1e-3, 8: 5e-9}


#: The smallest gap: an angle far below the rounding unit, yet large enough for finite derivatives.
_LEAST_GAP = {4: 1e-15, 8: 1e-33}


def _precision(x: Array) -> int:
    return 8 if x.dtype.itemsize >= 8 else 4


def doubtful_gap(dtype: jnp.dtype) -> float:
    """The gap below which `dtype` arithmetic puts an angle in doubt."""
    return DOUBTFUL_GAP[8 if jnp.dtype(dtype).itemsize >= 8 else 4]


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Σ cᵢ xⁱ by Estrin's scheme: neighbours are joined pairwise, so that a processor works on several at once."""
    terms = [jnp.full_like(x, c) for c in coefficients]
    while len(terms) > 1:
        pairs = [low + high * x for low, high in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
        x = x * x
    return terms[0]


def _long_polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Σ cᵢ xⁱ as four interleaved Horner chains in x⁴, which need fewer registers than `_polynomial`."""
    x2 = x * x
    x4 = x2 * x2

    def chain(start: int) -> Array:
        last, *others = coefficients[start::4][::-1]
        total = jnp.full_like(x, last)
        for c in others:
            total = total * x4 + c
        return total

    return (chain(0) + x * chain(1)) + x2 * (chain(2) + x * chain(3))


def arccos_of_gap(gap: Array) -> Array:
    """arccos(1 − gap) for gap in [0, 1]: relative error below 4 ε, ε the rounding unit of the type."""
    size = _precision(gap)
    polynomial = _polynomial if size == 4 else _long_polynomial
    return jnp.sqrt(gap) * polynomial(_ARCCOS[size], gap)


def arcsin(x: Array, complement: Array | None = None) -> Array:
    """arcsin(x) for x in [−1, 1]: relative error below 4 ε. `complement`: 1 − |x| where it is known better."""
    a = jnp.abs(x)
    gap = jnp.maximum(1 - a if complement is None else complement, tiny(x.dtype))
    small = a < 0.5
    # arcsin a = π/2 − 2 arcsin √((1 − a) / 2): one polynomial on [0, 1/4] serves both halves.
    square = jnp.where(small, a * a, gap / 2)
    core = jnp.where(small, a, jnp.sqrt(gap / 2)) * _polynomial(_ARCSIN[_precision(x)], square)
    return jnp.where(x < 0, -1.0, 1.0).astype(x.dtype) * jnp.where(small, core, jnp.pi / 2 - 2 * core)


def excess_of_gap(gap: Array) -> Array:
    """sin θ − θ cos θ at cos θ = 1 − gap, for gap in [0, 1]: relative error below 4 ε, down to θ = 0."""
    return gap * jnp.sqrt(gap) * _polynomial(_EXCESS[_precision(gap)], gap)


def tiny(dtype: jnp.dtype) -> float:
    """A positive number far below any variance that matters, whose reciprocal root is finite: it stands in for zero
    where a root or a quotient would give an infinite derivative."""
    return 1e-280 if jnp.dtype(dtype).itemsize >= 8 else 1e-35


def signed(magnitude: Array, x: Array) -> Array:
    """An odd function of x from its value at |x|. Unlike `copysign` it leaves the derivatives at x = 0 right, where the
    magnitude vanishes."""
    return jnp.where(x < 0, -magnitude, magnitude)


def inverse_root(var: Array) -> Array:
    """1 / √var, and 0 where var is: whatever is divided by the norm of a zero vector is zero, its derivatives too."""
    live = var > tiny(var.dtype)
    # The inner selection keeps the infinite derivative of the unused root out of the product rule.
    return jnp.where(live, lax.rsqrt(jnp.where(live, var, 1)), 0)


class Angle(NamedTuple):
    """cos: cos θ; gap: 1 − |cos θ|; scale: √(var1 var2). A zero vector is orthogonal to everything. exact: the gap is
    known to its last digit, down to θ = 0."""

    cos: Array
    gap: Array
    scale: Array
    exact: bool

    def excess(self) -> Array:
        """sin θ' − θ' cos θ' of the folded angle θ' = min(θ, π − θ).

        In float64, from θ' itself where the gap came by cancellation: the difference loses no more digits than the gap
        has, and a root costs less than a second polynomial.
        """
        if self.exact or _precision(self.gap) == 4:
            return excess_of_gap(self.gap)
        return jnp.sqrt(self.gap * (2 - self.gap)) - arccos_of_gap(self.gap) * (1 - self.gap)

    def vanishing(self, value: Array) -> Array:
        """`value`, made exactly zero where the angle is 0 or π: the gap itself never quite vanishes."""
        return jnp.where(self.gap > 2 * _LEAST_GAP[_precision(self.gap)], value, 0)


def angle(nngp: Array, var1: Array, var2: Array, residual: Residual | None = None) -> Angle:
    """The angle of pairs with covariance nngp. Without `residual` the gap comes by cancellation."""
    inverse1, inverse2 = inverse_root(var1), inverse_root(var2)
    # One value per row and one per column: without the barrier XLA computes them anew for every pair.
    inverse1, inverse2, root1, root2 = lax.optimization_barrier(
        (inverse1, inverse2, var1 * inverse1, var2 * inverse2)
    )
    cos = nngp * inverse1 * inverse2
    if residual is None:
        gap = 1 - jnp.abs(cos)
    else:
        cos = jnp.clip(cos, -1, 1)
        inverse = inverse1 * inverse2
        product, square = (
            (residual.minus * inverse) * (residual.plus * inverse),
            (residual.delta * inverse) ** 2,
        )
        sin2 = jnp.maximum(product - square, 0) / 4
        # Where a bias has made the scale of the pair a bad one, the terms of the difference exceed those of 1 − cos².
        better = product + square < 4
        gap = jnp.where(better, sin2 / (1 + jnp.abs(cos)), 1 - jnp.abs(cos))
    # The clamp keeps the gap positive under rounding, and √gap differentiable.
    return Angle(cos, jnp.maximum(gap, _LEAST_GAP[_precision(nngp)]), root1 * root2, residual is not None)


def folded(cos: Array) -> tuple[Array, Array, Array]:
    """θ' = min(θ, π − θ), sin θ' − θ' cos θ', and the gap, by cancellation: in the operations that a GPU does best."""
    size = _precision(cos)
    gap = jnp.maximum(1 - jnp.abs(cos), _LEAST_GAP[size])
    if size == 4:
        root = gap * lax.rsqrt(gap)
        return root * _polynomial(_ARCCOS[4], gap), gap * root * _polynomial(_EXCESS[4], gap), gap
    theta = arccos_of_gap(gap)
    # The difference loses no more digits than the gap has already.
    return theta, jnp.sqrt(gap * (2 - gap)) - theta * (1 - gap), gap
