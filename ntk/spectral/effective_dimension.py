"""How many directions of function space a kernel matrix really uses: three counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def effective_dimension(
    eigenvalues: NDArray[np.floating], ridge: ArrayLike, floor: float = 0.0
) -> NDArray[np.float64]:
    """d(ridge) = Σ_k λ_k / (λ_k + ridge), degrees of freedom of kernel ridge regression (Zhang 2005).

    Args:
        eigenvalues: (n,) of K, any order.
        ridge: ≥ 0, absolute (what is added to the diagonal of K), a number or an array.
        floor: modes at or below it are not interpreted and count nothing.

    Returns:
        float64 of the shape of `ridge`, between 0 and the number of modes above `floor`.
    """
    ridge = np.asarray(ridge, np.float64)
    if not np.all(ridge >= 0):
        raise ValueError(f"ridge must be >= 0, got {ridge.min()}")
    modes = np.asarray(eigenvalues, np.float64)
    modes = modes[modes > max(floor, 0.0)]
    return np.sum(modes / (modes + ridge[..., None]), axis=-1)


def participation_ratio(eigenvalues: NDArray[np.floating]) -> float:
    """(Σλ)² / Σλ²: n for a flat spectrum, 1 for a single mode (Bell & Dean 1970; Gao et al. 2017)."""
    values = np.asarray(eigenvalues, np.float64)
    return float(np.sum(values) ** 2 / np.sum(values**2))


def stable_rank(eigenvalues: NDArray[np.floating]) -> float:
    """‖K‖²_F / ‖K‖²_2 = Σλ² / λ_max², at most the rank of K (Rudelson & Vershynin 2007, §1)."""
    values = np.asarray(eigenvalues, np.float64)
    return float(np.sum(values**2) / np.max(np.abs(values)) ** 2)
