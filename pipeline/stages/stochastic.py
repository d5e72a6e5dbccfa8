"""What iterative solvers know of (K + λI)⁻¹ from random right-hand sides: cross-validation with error bars.

With z of random signs, E zᵀ A⁻¹ z = tr A⁻¹ (Hutchinson 1990). Where a preconditioner M ≈ A is at hand, its trace is
known exactly and only that of A⁻¹ − M⁻¹ is estimated, as Hutch++ does with a sketch (Meyer, Musco, Musco & Woodruff
2021): the better it is, the smaller the error.
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
    """Generalised cross-validation √(mean α²) / (tr A⁻¹ / n). Leave-one-out errors divide by single entries of the
    diagonal of A⁻¹, which a handful of probes does not know well enough to say by how much.

    Args:
        alpha: A⁻¹ Y, (n, outputs).
        signs: Z, (n, p), p = 0 for no answer.
        solved: A⁻¹ Z.
        model: M⁻¹ Z and the diagonal of M⁻¹, of which its mean counts.

    Returns:
        `gcv_rmse` and `mean_inverse_diagonal`, each with `…_error`, one standard error over the probes.
    """
    p = signs.shape[1]
    if not p:
        return {}
    products = signs * (solved if model is None else solved - model[0])
    means = products.mean(axis=0) + (0.0 if model is None else float(model[1].mean()))
    mean, spread = float(means.mean()), float(means.std(ddof=1) / math.sqrt(p)) if p > 1 else math.inf
    gcv = math.sqrt(float(np.mean(alpha**2))) / mean
    return {
        "gcv_rmse": gcv,
        "mean_inverse_diagonal": mean,
        "gcv_rmse_error": gcv * spread / abs(mean),
        "mean_inverse_diagonal_error": spread,
    }
