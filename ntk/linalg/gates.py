"""Numerical gates: a residual computed in float64, scaled so that backward-stable arithmetic makes it small.

Each function returns a `Gate`: a value, the limit it must stay below, and whether it does. ε is the unit
``numpy.finfo(dtype).eps`` of the dtype whose arithmetic is being judged, not of the float64 residual.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

Product = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Gate:
    """A residual and the limit below which it passes. A value or limit that is NaN never passes."""

    value: float
    limit: float

    @property
    def passed(self) -> bool:
        return bool(self.value < self.limit)

    def to_dict(self) -> dict[str, float | bool | None]:
        """``{"value", "limit", "passed"}`` for JSON, where a value that is not finite stands as null."""
        return {
            "value": float(self.value) if math.isfinite(self.value) else None,
            "limit": float(self.limit),
            "passed": self.passed,
        }


def factor_gate(
    product: Product,
    factor_product: Product,
    *,
    n: int,
    frobenius: float,
    dtype: DTypeLike,
    probes: int = 8,
    seed: int = 0,
) -> Gate:
    """‖UᵀU − A‖_F / (n ε ‖A‖_F) < 30, the backward error of a Cholesky factor (Higham 2002, theorem 10.3).

    The norm of the residual R is probed: for Gaussian X with p columns, E ‖R X‖²_F / p = ‖R‖²_F. With the
    default 8 columns a residual ten times over its limit passes with a probability below 1e-6, even if its
    rank is one.

    Args:
        product: X ↦ A X for X of shape (n, probes).
        factor_product: X ↦ Uᵀ(U X), for instance `ntk.linalg.substitution.factor_product`.
        n: rows of A.
        frobenius: ‖A‖_F.
        dtype: dtype of the factor.
    """
    x = np.random.default_rng(seed).standard_normal((n, probes))
    residual = float(np.linalg.norm(factor_product(x) - product(x))) / math.sqrt(probes)
    return Gate(_ratio(residual, n * _epsilon(dtype) * frobenius), 30.0)


def solve_gate(residual: NDArray, solution: NDArray, rhs: NDArray, *, norm: float, dtype: DTypeLike) -> Gate:
    """‖b − Ax‖ / (ε (‖A‖ ‖x‖ + ‖b‖)) < 30 n, the normwise backward error of A x = b (Rigal & Gaches 1967).

    Args:
        residual: b − A x, (n,) or (n, r); the gate's value is the worst column's.
        solution: x, same shape.
        rhs: b, same shape.
        norm: ‖A‖, Frobenius or spectral.
        dtype: dtype of the solver's arithmetic.
    """
    n = residual.shape[0]
    scale = _epsilon(dtype) * (norm * _column_norms(solution) + _column_norms(rhs))
    return Gate(_worst(_column_norms(residual), scale), 30.0 * n)


def eigenpair_gate(
    products: NDArray, values: NDArray, vectors: NDArray, *, lambda_max: float, dtype: DTypeLike
) -> Gate:
    """max_k ‖K v_k − λ_k v_k‖ / (λ_max ε) < 30 √n: how far each pair is from one of K (Parlett 1998).

    Args:
        products: K V, (n, k).
        values: λ, (k,).
        vectors: V, (n, k), columns of unit length.
        lambda_max: the largest |λ| of K.
        dtype: dtype of the eigensolver's arithmetic.
    """
    n, k = vectors.shape
    residuals = _column_norms(products - vectors * values)
    return Gate(_worst(residuals, np.full(k, lambda_max * _epsilon(dtype))), 30.0 * math.sqrt(n))


def tolerance_gate(
    products: NDArray, values: NDArray, vectors: NDArray, *, lambda_max: float, tolerance: float
) -> Gate:
    """max_k ‖K v_k − λ_k v_k‖ / λ_max < 2 · tolerance: eigenpairs of an iteration that stops at a tolerance.

    Arguments as in `eigenpair_gate`, `tolerance` relative to λ_max.
    """
    residuals = _column_norms(products - vectors * values)
    return Gate(_worst(residuals, np.full(len(values), lambda_max)), 2 * tolerance)


def orthogonality_gate(vectors: NDArray, *, dtype: DTypeLike, probes: int = 8, seed: int = 0) -> Gate:
    """‖VᵀV − I‖_F / (n ε ‖I‖_F) < 30 for V of shape (n, k), probed as in `factor_gate` in O(n k)."""
    n, k = vectors.shape
    x = np.random.default_rng(seed).standard_normal((k, probes))
    residual = float(np.linalg.norm(vectors.T @ (vectors @ x) - x)) / math.sqrt(probes)
    return Gate(_ratio(residual, n * _epsilon(dtype) * math.sqrt(k)), 30.0)


def trace_gate(values: NDArray, *, trace: float, dtype: DTypeLike) -> Gate:
    """|Σλ − tr K| / (n ε max|λ|) < 30, for all n eigenvalues of K."""
    scale = values.size * _epsilon(dtype) * float(np.max(np.abs(values)))
    return Gate(_ratio(abs(math.fsum(values) - trace), scale), 30.0)


def frobenius_gate(values: NDArray, *, frobenius: float, dtype: DTypeLike) -> Gate:
    """|Σλ² − ‖K‖²_F| / (n ε ‖K‖²_F) < 30, for all n eigenvalues of K."""
    squares = math.fsum(np.square(values, dtype=np.float64))
    return Gate(_ratio(abs(squares - frobenius**2), values.size * _epsilon(dtype) * frobenius**2), 30.0)


def _epsilon(dtype: DTypeLike) -> float:
    return float(np.finfo(dtype).eps)


def _column_norms(x: NDArray) -> NDArray[np.float64]:
    return np.linalg.norm(np.asarray(x, np.float64).reshape(x.shape[0], -1), axis=0)


def _worst(residuals: NDArray[np.float64], scales: NDArray[np.float64]) -> float:
    ratios = [_ratio(float(r), float(s)) for r, s in zip(residuals, scales, strict=True)]
    # Python's max() may lose a NaN; numpy's does not.
    return float(np.max(ratios))


def _ratio(residual: float, scale: float) -> float:
    """residual / scale, where nothing left over of nothing (a zero right-hand side) is a perfect answer."""
    if residual == 0 and scale == 0:
        return 0.0
    return float(residual / scale) if scale != 0 else math.nan


def column_norms(b: NDArray[np.float64]) -> NDArray[np.float64]:
    """‖b‖ of each column of b (n, k), by which residuals are judged; 1 for a zero column, whose solution is zero."""
    norms = np.linalg.norm(b, axis=0)
    return np.where(norms > 0, norms, 1.0)
