"""The ensemble at time t from products with the training kernels alone: no decomposition, no matrix in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.matrix_functions import GradientFlow, Product, gradient_flow


@dataclass(frozen=True, slots=True)
class StreamedEnsemble:
    """Mean and covariance of the ensemble at every time.

    Attributes:
        mean: (times, m, outputs). covariance: (times, m, m).
        mean_flow, weights_flow: how the coefficients of the mean, and the rows of A_t, were found; with their bounds.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    mean_flow: GradientFlow
    weights_flow: GradientFlow


def streamed_ensemble(
    ntk: Product,
    nngp: Product,
    y: NDArray[np.floating],
    ntk_test_train: NDArray[np.floating],
    nngp_test_train: NDArray[np.floating],
    nngp_test_test: NDArray[np.floating],
    times: Sequence[float],
    *,
    lower: float = 0.0,
    tolerance: float = 1e-8,
    max_products: int = 300,
) -> StreamedEnsemble:
    """What `gradient_descent_mse_ensemble` computes for "ntk", for any n of which n × m arrays fit into memory.

    A_tᵀ = Θ⁻¹ (I − e^{−Θτ}) Θ(X, x) by `gradient_flow`, one right-hand side for each test row; mean A_t y; covariance
    𝒦(x, x') + A_t 𝒦 A_tᵀ − (A_t 𝒦(X, x') + transpose) (Lee et al. 2019, eq. 14–15), with one more pass over 𝒦 a time.

    Args:
        ntk: V ↦ Θ V for V (n, r), a ridge included if there is one. nngp: V ↦ 𝒦 V, without.
        y: (n, outputs).
        ntk_test_train, nngp_test_train: (m, n). nngp_test_test: (m, m).
        times: τ = η t / y.size.
        lower, tolerance, max_products: see `gradient_flow`.

    Raises:
        ValueError, numpy.linalg.LinAlgError: see `gradient_flow`.
    """
    limits = {"lower": lower, "tolerance": tolerance, "max_products": max_products}
    mean_flow = gradient_flow(ntk, y, times, **limits)
    weights_flow = gradient_flow(ntk, ntk_test_train.T, times, **limits)
    mean = np.stack([ntk_test_train @ alpha for alpha in mean_flow.coefficients])
    covariances = []
    for weights in weights_flow.coefficients:  # A_tᵀ, (n, m)
        mixed = nngp_test_train @ weights
        own = weights.T @ nngp(weights)
        covariances.append(nngp_test_test + (own + own.T) / 2 - (mixed + mixed.T))
    return StreamedEnsemble(mean, np.stack(covariances), mean_flow, weights_flow)
