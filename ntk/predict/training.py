"""The kernel matrix of the training rows: checked, regularised, and decomposed when a prediction first needs it."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.linalg import LinAlgError
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, get_lapack_funcs, solve_triangular

from ntk.arrays import within
from ntk.linalg.smallest import sufficient_ridge
from ntk.predict.axes import Targets, floating, library, matrix
from ntk.tracing import concrete


class Eigenpairs(NamedTuple):
    """λ (n,) ascending and not negative, and V (n, n) with the eigenvectors in its columns."""

    values: NDArray[np.float64]
    vectors: NDArray[np.float64]


class TrainingKernel:
    """K + λI on the training rows, float64 (n, n).

    Eigenvalues within n ε λ_max of zero, ε of the dtype the kernel came in, are not told apart from zero: negative
    ones among them count as zero, which is a change of K within its own rounding errors. An inverse does not exist
    then, and asking for one raises LinAlgError.

    Args:
        kernel: K, axes in pairs.
        targets: what it must fit.
        diag_reg, absolute: λ, or λ / mean(diag K).
        name: what to call the kernel in errors. argument: what the caller calls diag_reg.

    Raises:
        ValueError: a kernel of the wrong shape, not finite or not symmetric; a regulariser that is negative.
    """

    def __init__(
        self,
        kernel: Any,
        targets: Targets,
        diag_reg: float,
        absolute: bool,
        name: str,
        argument: str = "diag_reg",
    ) -> None:
        self.argument = argument
        self.name, self.dtype, self.shape, self.absolute = name, floating(kernel), kernel.shape, absolute
        self.kernel = checked(kernel, targets.rows, name)
        if not within(0, diag_reg, np.inf):
            raise ValueError(f"{argument} must be a finite number and not negative, got {diag_reg!r}")
        self.mean_diagonal = float(np.trace(self.kernel)) / len(self.kernel)
        self.added = diag_reg * (1 if absolute else self.mean_diagonal)
        self.matrix = self.kernel.copy()
        self.matrix[np.diag_indices_from(self.matrix)] += self.added

    @property
    def rows(self) -> tuple[int, ...]:
        """The row axes of the kernel as it came."""
        return self.shape[::2]

    @cached_property
    def eigenpairs(self) -> Eigenpairs:
        """Raises LinAlgError when an eigenvalue is negative beyond rounding."""
        values, vectors = eigh(self.matrix, driver="evd")
        if values[0] < -self._resolution(values[-1]):
            raise self._unfit("is indefinite", values)
        return Eigenpairs(np.maximum(values, 0.0), vectors)

    def check_invertible(self) -> None:
        """Raises LinAlgError when λ_min does not rise above the rounding errors."""
        values = self.eigenpairs.values
        if values[0] <= self._resolution(values[-1]):
            raise self._unfit("is singular to working precision", values)

    @cached_property
    def factor(self) -> NDArray[np.float64]:
        """L, lower triangular, L Lᵀ = K + λI. Raises LinAlgError when the matrix is not safely positive definite."""
        try:
            lower = cholesky(self.matrix, lower=True)
        except LinAlgError:
            raise self._unfit("is not positive definite") from None
        (condition,) = get_lapack_funcs(("pocon",), (lower,))
        reciprocal, _ = condition(lower, np.abs(self.matrix).sum(axis=0).max(), uplo="L")
        if reciprocal < np.finfo(self.dtype).eps:
            raise self._unfit("is singular to working precision")
        return lower

    def solve(self, b: Any) -> Any:
        """(K + λI)⁻¹ b for b of shape (n, r)."""
        return self._triangular(self.half_solve(b), transposed=True)

    def half_solve(self, b: Any) -> Any:
        """L⁻¹ b for b of shape (n, r)."""
        return self._triangular(b, transposed=False)

    def _triangular(self, b: Any, *, transposed: bool) -> Any:
        solve = solve_triangular if library(b) is np else jax.scipy.linalg.solve_triangular
        return solve(self.factor, b, lower=True, trans=1 if transposed else 0)

    def _resolution(self, lambda_max: float) -> float:
        return resolution(lambda_max, len(self.matrix), self.dtype)

    def _unfit(self, fault: str, values: NDArray[np.float64] | None = None) -> LinAlgError:
        values = eigh(self.matrix, eigvals_only=True) if values is None else values
        lowest, highest = float(values[0]), float(np.max(np.abs(values)))
        eps = float(np.finfo(self.dtype).eps)
        # Twice what is wanting on top of what has been added, to stand clear of the limit.
        wanted = self.added + 2 * sufficient_ridge(lowest, len(self.matrix), highest, eps)
        if self.absolute or self.mean_diagonal > 0:
            remedy = wanted if self.absolute else wanted / self.mean_diagonal
            hint = f"{self.argument}={remedy:.1e} or more would do; look for repeated rows"
        else:
            hint = "its mean diagonal is not positive: look at the inputs and the weight variances"
        return LinAlgError(
            f"the {self.name} of the training rows, regularised by {self.added:.3g}, {fault}: its eigenvalues reach "
            f"from {lowest:.3g} to {highest:.3g}\nhint: {hint}"
        )


def resolution(lambda_max: float, rows: int, dtype: np.dtype) -> float:
    """n ε λ_max: eigenvalues of a kernel that came in a dtype are not told apart from zero within this."""
    return rows * float(np.finfo(dtype).eps) * max(float(lambda_max), 0.0)


def checked(kernel: Any, rows: int, name: str) -> NDArray[np.float64]:
    """A training kernel as a symmetric float64 matrix; raises ValueError saying what is wrong with it."""
    dense = matrix(np.asarray(concrete(kernel, f"the {name} of the training rows"))).astype(np.float64)
    if dense.shape != (rows, rows) or not rows:
        raise ValueError(
            f"the {name} of the training rows has shape {kernel.shape}, a matrix of {dense.shape}; the targets without "
            f"trace_axes have {rows} entries"
        )
    if not np.isfinite(dense).all():
        i, j = np.argwhere(~np.isfinite(dense))[0]
        raise ValueError(f"the {name} of the training rows is not finite: entry ({i}, {j}) is {dense[i, j]}")
    gap, size = float(np.abs(dense - dense.T).max()), float(np.abs(dense).max())
    allowed = float(np.sqrt(np.finfo(floating(kernel)).eps)) * size
    if gap > allowed:
        raise ValueError(
            f"the {name} of the training rows is not symmetric: it differs from its transpose by up to {gap:.3g}, "
            f"{allowed:.3g} would pass as rounding"
        )
    return (dense + dense.T) / 2
