"""How complex the labels are for the kernel: norms of fits and the bound on the error that follows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def label_complexity(
    eigenvalues: NDArray[np.floating], power: NDArray[np.floating], floor: float = 0.0
) -> NDArray[np.float64]:
    """yᵀ K⁻¹ y = Σ (v_kᵀ y)² / λ_k for each output: the squared RKHS norm of the function that interpolates y.

    Args:
        eigenvalues: (n,), all of them.
        power: (n, outputs), `ntk.spectral.alignment.label_power`.
        floor: `ntk.spectral.stability.noise_floor`.

    Returns:
        (outputs,); NaN when an eigenvalue is not above the floor, where yᵀ K⁻¹ y is rounding.
    """
    values = np.asarray(eigenvalues, np.float64)
    if not np.min(values) > max(floor, 0.0):
        return np.full(power.shape[1], np.nan)
    return (1 / values) @ np.asarray(power, np.float64)


def generalisation_bound(complexity: ArrayLike, n: int, mean_diagonal: float = 0.5) -> NDArray[np.float64]:
    """√(2 yᵀK⁻¹y / n) for a kernel with K(x, x) = ½; in general 2 √(yᵀK⁻¹y · mean(diag K) / n).

    Expected loss of the interpolating network on a new row is below it up to O(√(log n / n)), for a loss that is
    1-Lipschitz, at most 1, and zero at the label, and labels |y| ≤ 1 (Arora, Du, Hu, Li & Wang 2019, theorem 5.1, whose
    kernel has the diagonal ½). In the general form, twice the Rademacher complexity of a ball in the RKHS (Bartlett &
    Mendelson 2002, lemma 22), the scale of the kernel drops out. A value of 1 or more says nothing.

    Args:
        complexity: yᵀ K⁻¹ y, a number or one for each output.
        n: rows.
        mean_diagonal: tr K / n.
    """
    return 2 * np.sqrt(np.asarray(complexity, np.float64) * mean_diagonal / n)


def rkhs_norm(eigenvalues: NDArray[np.floating], power: NDArray[np.floating], ridge: float) -> float:
    """‖f‖_H = √(αᵀ K α) of the ridge regression α = (K + δI)⁻¹ Y: √(Σ λ_k (v_kᵀ y)² / (λ_k + δ)²), all outputs
    together (Schölkopf & Smola 2002, §4.2).

    Args:
        eigenvalues: (n,). power: (n, outputs). ridge: δ > 0.
    """
    if not ridge > 0:
        raise ValueError(f"the ridge must be > 0, got {ridge}")
    values = np.maximum(np.asarray(eigenvalues, np.float64), 0.0)
    return math.sqrt(float((values / (values + ridge) ** 2) @ np.asarray(power, np.float64).sum(axis=1)))
