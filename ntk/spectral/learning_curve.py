"""The held-out error of kernel ridge regression on n rows, predicted from the spectrum of the kernel.

Simon, Dickens, Karkada & DeWeese 2021 ("The eigenlearning framework") and Canatar, Bordelon & Pehlevan 2021 draw n
training rows from a population with kernel eigenvalues λ_i and label coefficients c_i. A ridge δ acts like a larger
one, κ, on the whole population: mode i is learned to the share λ_i / (λ_i + κ), where

    Σ λ_i / (λ_i + κ) + δ / κ = n,     E(n) = n / (n − Σ (λ_i / (λ_i + κ))²) · Σ c_i² (κ / (λ_i + κ))².

The population that a stored matrix knows is its own N rows. n of them are a sample without replacement, and the
held-out error is taken on the N − n others. The same argument (the resolvent of P + δ K⁻¹ with P the random projection
on the training rows, by free addition: Voiculescu 1991) then gives, with eigenvalues of the matrix K itself,

    Σ (λ_i + δ) / (λ_i + κ) = n,       E(n) = F(n) · 1/N Σ_i (r_i / (1 − h_i))²,

where r = κ (K + κI)⁻¹ y are the residuals of regression on all rows with ridge κ and h the diagonal of
K (K + κI)⁻¹, so that r_i / (1 − h_i) is its leave-one-out residual. Without eigenvectors every h_i is replaced by its
mean (generalised cross-validation). F ≥ 1 is the price of a finite training set; it is 1 at n = N. For N → ∞ both are
the formulas above, which know nothing of the rows already used up: at n near N they go to zero, the measured error does
not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

_ROOT: Any = 1e-13
"""Relative accuracy of log κ."""
_LOWEST = 1e-18
"""Where the search for κ begins, relative to λ_max, when there is no ridge."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Predicted held-out errors, summed over outputs, for each number of training rows; float64 arrays (sizes,).

    Attributes:
        sizes: n.
        effective_ridge: κ, in units of the eigenvalues of K.
        error: mean square error on the rows held out, from eigenvalues, label coefficients and leverages.
        mean_field: the same from eigenvalues and label power alone.
    """

    sizes: NDArray[np.int64]
    effective_ridge: NDArray[np.float64]
    error: NDArray[np.float64]
    mean_field: NDArray[np.float64]


def effective_ridge(eigenvalues: NDArray[np.floating], n: int, ridge: float, *, finite: bool = True) -> float:
    """κ ≥ ridge with Σ (λ + ridge) / (λ + κ) = n; or, of an infinite population, Σ λ/(λ + κ) + N ridge/κ = n.

    Args:
        eigenvalues: (N,) of K, zeros included, any order; N times those of the population's kernel operator.
        n: training rows, 1 ≤ n ≤ N.
        ridge: δ ≥ 0, what is added to the diagonal of the n × n matrix.
        finite: whether the rows are drawn without replacement from the N rows of K.

    Returns:
        κ; 0 where n rows without a ridge determine every mode above zero.
    """
    values = np.maximum(np.asarray(eigenvalues, np.float64), 0.0)
    rows = values.size
    if not (1 <= n <= rows and ridge >= 0 and values.max() > 0):
        raise ValueError(
            f"needs 1 <= n <= {rows}, ridge >= 0 and an eigenvalue > 0, got n {n}, ridge {ridge}"
        )
    if finite and n == rows:
        return ridge

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        share = np.sum((values + ridge) / (values + kappa)) if finite else (
            np.sum(values / (values + kappa)) + rows * ridge / kappa
        )  # fmt: skip
        return float(share) - n

    # Σ (λ + δ) / κ bounds either left side from above.
    high = np.log(np.sum(values + ridge) / n) + 1e-9
    low = np.log(ridge if finite else ridge * rows / n) if ridge > 0 else np.log(_LOWEST * values.max())
    if excess(low) <= 0:
        return ridge if finite else float(np.exp(low)) if ridge > 0 else 0.0
    root: Any = brentq(excess, low, high, xtol=1e-13, rtol=_ROOT)
    return float(np.exp(root))


def eigenlearning_error(
    eigenvalues: NDArray[np.floating], power: NDArray[np.floating], n: int, ridge: float
) -> float:
    """E(n) over an infinite population whose spectrum is that of K / N (Simon et al. 2021; Canatar et al. 2021).

    Args:
        eigenvalues: (N,) of K.
        power: (N,) or (N, outputs), (v_kᵀ y)² (`ntk.spectral.alignment.label_power`).
        n: training rows; without a ridge fewer than the rank of K.
        ridge: δ.

    Returns:
        Mean square error of a fresh row, summed over outputs.
    """
    values = np.maximum(np.asarray(eigenvalues, np.float64), 0.0)
    kappa = effective_ridge(values, n, ridge, finite=False)
    if kappa == 0:
        return 0.0
    learned = values / (values + kappa)
    unlearned = _per_mode(power) @ np.square(1 - learned)
    return float(unlearned / values.size * n / (n - np.sum(learned**2)))


def learning_curve(
    eigenvalues: NDArray[np.floating],
    eigenvectors: NDArray[np.floating],
    labels: NDArray[np.floating],
    sizes: ArrayLike,
    ridge: float,
) -> LearningCurve:
    """Held-out error after training on n of the N rows of K and testing on the others, by the formulas above.

    Args:
        eigenvalues: (N,) of K.
        eigenvectors: (N, N), in columns, in the same order.
        labels: (N,) or (N, outputs). Nothing is centred: a constant is a label like any other.
        sizes: numbers of training rows, each 1 ≤ n < N.
        ridge: δ > 0, absolute.
    """
    values = np.maximum(np.asarray(eigenvalues, np.float64), 0.0)
    y = np.asarray(labels, np.float64).reshape(values.size, -1)
    asked = np.atleast_1d(np.asarray(sizes, np.int64))
    if not (np.all(asked >= 1) and np.all(asked < values.size) and ridge > 0):
        raise ValueError(f"needs 1 <= n < {values.size} and ridge > 0, got {asked.tolist()}, {ridge}")
    coefficients, squares = eigenvectors.T @ y, np.square(eigenvectors)
    power = np.square(coefficients).sum(axis=1)
    found = np.empty((3, asked.size))
    for at, n in enumerate(asked.tolist()):
        kappa = effective_ridge(values, n, ridge)
        learned = values / (values + kappa)
        residuals = eigenvectors @ (coefficients * (1 - learned)[:, None])
        left_out = residuals / (1 - squares @ learned)[:, None]
        price = _price(learned, n)
        generalised = power @ np.square(1 - learned) / np.mean(1 - learned) ** 2 / values.size
        found[:, at] = kappa, price * np.sum(left_out**2) / values.size, price * generalised
    return LearningCurve(asked, *found)


def _price(learned: NDArray[np.float64], n: int) -> float:
    """F(n) = b′ (N − D)² / (N (N − n)).

    b(t) is the subordination of P + t (1 − P) + δ K⁻¹ at t = 0, so that (1 − P) between two resolvents is b′ times a
    square; with D = Σ h, D₂ = Σ h² over the shares h = λ/(λ + κ), p = n/N and s = n/D − 1. For N → ∞ it is the
    overfitting coefficient n / (n − D₂) of Simon et al. 2021.
    """
    rows = learned.size
    trained, s = n / rows, n / learned.sum() - 1
    degrees, squares = learned.sum(), np.sum(learned**2)
    spread = trained * (s / (1 + s)) ** 2 + 1 - trained
    slope = (1 - trained) / (
        squares * (rows - degrees) ** 2 / (rows * degrees**2) - spread * (rows * squares / degrees**2 - 1)
    )
    return float(slope * (rows - degrees) ** 2 / (rows * (rows - n)))


def _per_mode(power: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(power, np.float64).reshape(len(power), -1).sum(axis=1)
