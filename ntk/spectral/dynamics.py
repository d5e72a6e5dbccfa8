"""Errors during training by gradient flow, in closed form from the eigenpairs of the training kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FlowErrors:
    """Mean square errors summed over outputs at each time; float64 (times,). `test` is None without test rows."""

    times: NDArray[np.float64]
    train: NDArray[np.float64]
    test: NDArray[np.float64] | None = None


def flow_times(lambda_max: float, lambda_min: float, count: int = 60) -> NDArray[np.float64]:
    """Times η t spaced evenly in their logarithm, from a tenth of the fastest mode's 1/λ_max to ten times the slowest
    mode's 1/λ_min."""
    if not lambda_max >= lambda_min > 0:
        raise ValueError(f"needs lambda_max >= lambda_min > 0, got {lambda_max} and {lambda_min}")
    return np.geomspace(0.1 / lambda_max, 10 / lambda_min, count)


def flow_errors(
    eigenvalues: NDArray[np.floating],
    eigenvectors: NDArray[np.floating],
    labels: NDArray[np.floating],
    times: NDArray[np.floating],
    cross: NDArray[np.floating] | None = None,
    test_labels: NDArray[np.floating] | None = None,
) -> FlowErrors:
    """Gradient flow df/dτ = −K(·, X) (f(X) − y) from f = 0, on ½‖f − y‖² summed over rows, τ = η t.

    On training rows mode k has the residual e^{−λ_k τ} c_k, c = Vᵀ y; elsewhere
    f_τ(x) = K(x, X) V diag((1 − e^{−λ_k τ}) / λ_k) c (Jacot et al. 2018, §5; Lee et al. 2019, eq. 11).

    Args:
        eigenvalues: (n,) of K(X, X); negative ones, which are rounding errors, are taken as zero.
        eigenvectors: (n, n).
        labels: (n,) or (n, outputs).
        times: (times,), τ ≥ 0.
        cross: K(test, X), (m, n). test_labels: (m,) or (m, outputs). Both or neither.
    """
    if (cross is None) != (test_labels is None):
        raise ValueError("cross and test_labels belong together")
    values = np.maximum(np.asarray(eigenvalues, np.float64), 0.0)
    tau = np.asarray(times, np.float64)
    coefficients = eigenvectors.T @ np.asarray(labels, np.float64).reshape(values.size, -1)
    decay = np.exp(-np.outer(tau, values))
    train = np.square(decay) @ np.square(coefficients).sum(axis=1) / values.size
    if cross is None or test_labels is None:
        return FlowErrors(tau, train)
    y = np.asarray(test_labels, np.float64).reshape(len(cross), -1)
    features = cross @ eigenvectors
    # (1 − e^{−λτ}) / λ → τ where λ = 0.
    gain = np.where(
        values > 0, -np.expm1(-np.outer(tau, values)) / np.where(values > 0, values, 1.0), tau[:, None]
    )
    test = [float(np.sum((features @ (g[:, None] * coefficients) - y) ** 2)) / len(y) for g in gain]
    return FlowErrors(tau, train, np.array(test))
