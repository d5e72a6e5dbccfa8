"""What a solve that failed says of K: its smallest eigenvalue, and a ridge that would do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ntk.linalg.smallest import Product, smallest_eigenvalue, sufficient_ridge
from pipeline.stages.regression import Regression

FEW_ROWS = 10_000
"""Up to this many rows λ_min is estimated from up to 200 products after a failure; beyond, from 40."""

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Advice:
    """What is known of the smallest eigenvalue, and λ with which (K + λI) is positive definite to rounding."""

    smallest: str
    sufficient: float


def advice(problem: Regression, product: Product, precision: str) -> Advice:
    """From products with K, whose entries are of a precision; they are passes over the matrix."""
    n, norm = problem.grid.n, problem.norms.frobenius
    found = smallest_eigenvalue(product, n, norm=norm, max_products=200 if n <= FEW_ROWS else 40)
    # Of the matrix that is stored, and of the one that it is the rounding of.
    uncertain = max(found.residual, n * float(np.finfo(precision).eps) * norm)
    return Advice(
        f"the smallest eigenvalue of K is about {found.value:.3g} (± {uncertain:.1g})",
        sufficient_ridge(found.lower, n, norm, EPS),
    )


def reachable_shift(problem: Regression, tolerance: float) -> float:
    """λ with which rounding errors in products, ε ‖K‖ ‖x‖ with ‖x‖ ≤ ‖b‖ / λ, are a tenth of the tolerance at most."""
    return 10 * EPS * problem.norms.frobenius / tolerance


def ridge_of(problem: Regression, shift: float) -> str:
    """The ridge for a λ, two digits, rounded up."""
    value = shift / problem.norms.mean_diagonal
    if value <= 0:
        return f"{EPS:.1e}"
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.1e}"
