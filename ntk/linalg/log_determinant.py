"""log det A from a Cholesky factor of lower precision, with what it lacks estimated, and how well that is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.quadrature import Estimate, estimate, probes

Map = Callable[[NDArray[np.float64]], NDArray[np.float64]]

PROBES = 8


def correction(product: Map, forward: Map, backward: Map, n: int) -> Estimate:
    """log det A − log det UᵀU, and half the width of its 95 % interval; zero where it is less than is known of it: the
    errors of a factor mostly cancel in its determinant.

    With E = U⁻ᵀ A U⁻¹ − I it is log det(I + E) = tr E − tr E²/2 + …; the first two terms are the mean of zᵀEz − ‖Ez‖²/2
    over vectors z of random signs (Hutchinson 1990), and the third, at most ‖E‖_F³ / 3, counts as uncertain.

    Args:
        product: X ↦ A X.
        forward, backward: B ↦ U⁻ᵀ B and B ↦ U⁻¹ B in float64, for B of shape (n, r).
    """
    z = probes(n, PROBES) * math.sqrt(n)
    e = forward(product(backward(z))) - z
    squares = np.sum(e * e, axis=0)
    found = estimate(np.sum(z * e, axis=0) - squares / 2)
    # Of ‖E‖_F² the squares are samples: twice their mean stands for it.
    half_width = found.half_width + (2 * squares.mean()) ** 1.5 / 3
    known = abs(found.value) > half_width
    return (
        Estimate(found.value, half_width) if known else Estimate(np.zeros(()), half_width + abs(found.value))
    )
