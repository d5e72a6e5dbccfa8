"""What iterative solvers know of (K + λI)⁻¹ from random right-hand sides: cross-validation with error bars.

With z of random signs, E zᵀ A⁻¹ z = tr A⁻¹ and E z ∘ A⁻¹ z = diag A⁻¹ (Hutchinson 1990; Bekas, Kokiopoulou & Saad
2007). Where a preconditioner M ≈ A is at hand, its trace and diagonal are known exactly and only those of A⁻¹ − M⁻¹ are
estimated, as Hutch++ does with a sketch (Meyer, Musco, Musco & Woodruff 2021): the better it is, the smaller the error.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.config.model import SolveConfig
from pipeline.plan import iterative

Array = NDArray[np.float64]


def probes(solve: SolveConfig, n: int) -> Array:
    """Random signs, where ridges have to be compared: (n, PROBES) or (n, 0)."""
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(n, iterative.columns_of(solve, 0)))


def cross_validation(
    alpha: Array, signs: Array, solved: Array, model: tuple[Array, Array] | None = None
) -> dict[str, float]:
    """Generalised cross-validation √(mean α²) / (tr A⁻¹ / n) and the leave-one-out error √(mean (α_i / (A⁻¹)_ii)²).

    Args:
        alpha: A⁻¹ Y, (n, outputs).
        signs: Z, (n, p), p = 0 for no answer.
        solved: A⁻¹ Z.
        model: M⁻¹ Z and the diagonal of M⁻¹.

    Returns:
        `gcv_rmse`, `mean_inverse_diagonal` and `stochastic_loo_rmse`, each with `…_error`, one standard error: over
        probes, for the last two by leaving out one probe at a time (jackknife).
    """
    p = signs.shape[1]
    if not p:
        return {}
    products = signs * (solved if model is None else solved - model[0])
    known = np.zeros(len(alpha)) if model is None else model[1]
    squares = np.mean(alpha**2, axis=1)

    def figures(kept: Array) -> Array:
        diagonal = known + kept.mean(axis=1)
        # An entry of A⁻¹ is positive; an estimate that is not, or is a tenth of the mean, says nothing of its row.
        floored = np.maximum(diagonal, 0.1 * abs(float(diagonal.mean())))
        left_out = math.sqrt(float(np.mean(squares / floored**2)))
        return np.array([math.sqrt(float(squares.mean())) / diagonal.mean(), diagonal.mean(), left_out])

    found = figures(products)
    without = np.array([figures(np.delete(products, probe, axis=1)) for probe in range(p)])
    errors = np.sqrt((p - 1) / p * np.sum((without - without.mean(axis=0)) ** 2, axis=0))
    names = ("gcv_rmse", "mean_inverse_diagonal", "stochastic_loo_rmse")
    values = dict(zip(names, found.tolist(), strict=True))
    return values | {f"{name}_error": error for name, error in zip(names, errors.tolist(), strict=True)}
