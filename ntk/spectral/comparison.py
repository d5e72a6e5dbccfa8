"""How two kernel matrices on the same rows differ: NTK and NNGP, two depths, two checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import subspace_angles


def eigenvalue_ratios(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """λ_k(first) / λ_k(second) rank by rank, as far as both reach; NaN where the second is not positive.

    Args:
        first, second: descending.
    """
    count = min(first.size, second.size)
    a, b = np.asarray(first[:count], np.float64), np.asarray(second[:count], np.float64)
    return np.divide(a, b, out=np.full(count, np.nan), where=b > 0)


def principal_angles(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Angles between the subspaces that two sets of columns span, ascending, in radians from 0 to π/2.

    Small angles come from sines and large ones from cosines, so that all are accurate (Björck & Golub 1973; Knyazev &
    Argentati 2002).

    Args:
        first, second: (n, k), orthonormal columns.
    """
    return subspace_angles(first, second)[::-1]


def centred_kernel_alignment(
    blocks: Iterable[tuple[slice, slice, NDArray[np.floating], NDArray[np.floating]]], n: int
) -> float:
    """⟨HAH, HBH⟩_F / (‖HAH‖_F ‖HBH‖_F) with H = I − 11ᵀ/n, in one pass over the upper tiles of both matrices.

    Also known as CKA (Cortes, Mohri & Rostamizadeh 2012, definition 4; Kornblith et al. 2019). With a = A1 and b = B1,
    ⟨HAH, HBH⟩ = ⟨A, B⟩ − 2/n aᵀb + (1ᵀa)(1ᵀb)/n².

    Args:
        blocks: (rows, columns, block of A, block of B) of the upper triangle; off-diagonal ones stand for their
            transposes too.
        n: rows.

    Returns:
        A number in [−1, 1], [0, 1] for positive semi-definite matrices; NaN when a centred matrix is zero.
    """
    sums = np.zeros((2, n))
    inner = np.zeros((2, 2))
    for rows, columns, *pair in blocks:
        a, b = (np.asarray(block, np.float64) for block in pair)
        mirrored = rows != columns
        weight = 2.0 if mirrored else 1.0
        inner += weight * np.array([[np.vdot(x, y) for y in (a, b)] for x in (a, b)])
        for at, block in enumerate((a, b)):
            sums[at, rows] += block.sum(axis=1)
            if mirrored:
                sums[at, columns] += block.sum(axis=0)
    totals = sums.sum(axis=1)
    centred = inner - 2 / n * sums @ sums.T + np.outer(totals, totals) / n**2
    # What is left of a constant matrix is rounding.
    if not np.all(np.diag(centred) > n * np.finfo(np.float64).eps * np.diag(inner)):
        return math.nan
    return float(centred[0, 1] / math.sqrt(centred[0, 0] * centred[1, 1]))
