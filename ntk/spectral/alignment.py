"""Which eigenmodes the labels live in, and how well the kernel as a whole fits them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

LOST = 1e-8
"""The share of ‖K‖² below which ‖HKH‖², found as a difference, has lost digits: K is nearly constant."""

_ROUNDINGS = 8
"""Errors of an entry and of the means of its row and column, in ε, generously."""


def label_power(eigenvectors: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """(v_kᵀ y_c)², the power of label column c in mode k (Canatar, Bordelon & Pehlevan 2021).

    Args:
        eigenvectors: (n, k), orthonormal columns, all or the leading ones.
        labels: (n,) or (n, classes).

    Returns:
        (k, classes). With all n modes each column sums to ‖y_c‖² (Parseval).
    """
    y = np.asarray(labels, np.float64).reshape(len(labels), -1)
    return np.square(eigenvectors.T @ y)


def cumulative_label_power(
    power: NDArray[np.floating], total: NDArray[np.floating] | None = None
) -> NDArray[np.float64]:
    """The share of the label power in modes 1 … k: C(k), per class.

    C(k) rises faster, the sooner gradient descent learns the labels (Canatar, Bordelon & Pehlevan 2021, fig.
    2).

    Args:
        power: (k, classes), from `label_power`.
        total: (classes,) ‖y_c‖²; by default the sum over the given modes, right if they are all n of them.

    Returns:
        (k, classes) in [0, 1], nondecreasing; NaN for a class without power.
    """
    total = np.sum(power, axis=0) if total is None else np.asarray(total, np.float64)
    cumulative = np.cumsum(power, axis=0, dtype=np.float64)
    return np.divide(cumulative, total, out=np.full(cumulative.shape, np.nan), where=total > 0)


def kernel_target_alignment(
    eigenvalues: NDArray[np.floating],
    eigenvectors: NDArray[np.floating],
    labels: NDArray[np.floating],
    *,
    centred: bool = True,
) -> float:
    """⟨K, YYᵀ⟩_F / (‖K‖_F ‖YYᵀ‖_F), the cosine between the kernel and the ideal one (Cristianini et al.
    2001).

    With `centred` (the default) both matrices are first centred, K → HKH and Y → HY with H = I − 11ᵀ/n, which
    keeps a constant offset of the kernel from dominating (Cortes, Mohri & Rostamizadeh 2012).

    Args:
        eigenvalues: (k,) of K, all of them, or the leading ones for the alignment of the truncated kernel.
        eigenvectors: (n, k).
        labels: (n,) or (n, classes).

    Returns:
        A number in [−1, 1], nonnegative if no eigenvalue is negative; NaN when K or Y is zero (after
        centring).
    """
    n = eigenvectors.shape[0]
    y = np.asarray(labels, np.float64).reshape(n, -1)
    values = np.asarray(eigenvalues, np.float64)
    squared_norm = float(np.sum(values**2))
    if centred:
        y = y - y.mean(axis=0)
        ones = eigenvectors.sum(axis=0, dtype=np.float64) / math.sqrt(n)
        # ‖HKH‖² = ‖K‖² − 2‖Ku‖² + (uᵀKu)² with u = 1/√n.
        whole = squared_norm
        squared_norm += float(np.sum(values * ones**2)) ** 2 - 2 * float(np.sum((values * ones) ** 2))
        if squared_norm <= LOST * whole:
            # ‖(HV) Λ (HV)ᵀ‖², where no term is larger than the sum of a positive semi-definite K.
            moved = eigenvectors - eigenvectors.mean(axis=0, dtype=np.float64)
            squared_norm = _but_rounding(float(values @ np.square(moved.T @ moved) @ values), whole, n)
    inner = float(values @ label_power(eigenvectors, y).sum(axis=1))
    scale = math.sqrt(max(squared_norm, 0.0)) * float(np.linalg.norm(y.T @ y))
    return inner / scale if scale > 0 else math.nan


def alignment_from_products(
    probes: NDArray[np.floating],
    products: NDArray[np.floating],
    frobenius: float,
    centred_squares: Callable[[NDArray[np.floating]], float],
) -> float:
    """`kernel_target_alignment` (centred) of the whole kernel, from one product with it instead of its eigenpairs.

    Args:
        probes: (n, 1 + classes), the vector 1/√n and the centred labels Y_c.
        products: K times `probes`.
        frobenius: ‖K‖_F.
        centred_squares: ‖HKH‖²_F, given the means of the rows of K (n,), by another pass over K; called only where K is
            so nearly constant that it does not follow from `frobenius`.
    """
    u, y = probes[:, 0], probes[:, 1:]
    ku, ky = products[:, 0], products[:, 1:]
    # ‖HKH‖² = ‖K‖² − 2‖Ku‖² + (uᵀKu)²; ⟨HKH, YYᵀ⟩ = tr Y_cᵀ K Y_c.
    squared_norm = frobenius**2 - 2 * float(ku @ ku) + float(u @ ku) ** 2
    if squared_norm <= LOST * frobenius**2:
        squared_norm = _but_rounding(centred_squares(ku / math.sqrt(len(u))), frobenius**2, _ROUNDINGS)
    scale = math.sqrt(max(squared_norm, 0.0)) * float(np.linalg.norm(y.T @ y))
    return float(np.sum(y * ky)) / scale if scale > 0 else math.nan


def _but_rounding(squared_norm: float, whole: float, roundings: int) -> float:
    """Zero where it is nothing but rounding errors of so many ε ‖K‖."""
    eps = float(np.finfo(np.float64).eps)
    return squared_norm if squared_norm > (roundings * eps) ** 2 * whole else 0.0


def centred_squares(
    blocks: Iterable[tuple[slice, slice, NDArray[np.floating]]], means: NDArray[np.floating]
) -> float:
    """‖HKH‖²_F as a sum of squares of K_ij − m_i − m_j + m̄.

    Args:
        blocks: (rows, columns, block of K) of the upper triangle; off-diagonal ones stand for their transposes too.
        means: m, those of the rows of K, (n,).
    """
    total, mean = 0.0, float(np.mean(means))
    for rows, columns, block in blocks:
        centred = np.asarray(block, np.float64) - means[rows, None] - (means[columns] - mean)
        total += (1 if rows == columns else 2) * float(np.vdot(centred, centred))
    return total
