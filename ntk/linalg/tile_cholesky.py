"""The steps of a left-looking blocked Cholesky factorisation A = UᵀU on upper tiles.

For each tile (i, j), i ≤ j, with S starting as A_ij:

    S    ←  A_ij − Σ_{k<i} U_kiᵀ U_kj          `update`, once per k
    U_ii ←  chol(S)              if i = j      `factor`
    U_ij ←  U_ii^{-T} S          if i < j      `solve_row`

Left-looking means that a tile is written once, when it is finished (Golub & Van Loan 2013, §4.2), so an
interrupted factorisation holds only final tiles. `cholesky` runs the same steps on a matrix in memory.

All steps work in place through BLAS on float32 or float64 tiles in C or Fortran order. BLAS knows Fortran
order only; a C-ordered tile is handed over as its transpose, which is the same memory, and the operation is
transposed with it. So no step copies a tile that is contiguous in either order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk.linalg import blas

Tile = NDArray[np.floating]


class NotPositiveDefinite(np.linalg.LinAlgError):
    """A pivot of the factorisation was not a positive number.

    Attributes:
        pivot: row of the pivot, counted from 0 in the tile (or in the matrix, after `within`).
        value: the offending Schur complement a_pp − Σ_{k<p} u_kp², zero, negative or NaN.
    """

    def __init__(self, pivot: int, value: float):
        super().__init__(pivot, value)
        self.pivot = pivot
        self.value = value

    def __str__(self) -> str:
        return f"matrix is not positive definite: pivot {self.pivot} is {self.value:.3g}"

    def within(self, rows: slice) -> NotPositiveDefinite:
        """The same failure, its pivot counted in the matrix whose rows `rows` the tile holds."""
        return NotPositiveDefinite(rows.start + self.pivot, self.value)


def update(s: Tile, a: Tile, b: Tile | None = None) -> None:
    """S ← S − AᵀB in place; for a diagonal tile (`b` omitted, or `a` itself) S ← S − AᵀA.

    Args:
        s: (m, n), overwritten. On a diagonal tile only the upper triangle is updated (half the work) and the
            strictly lower one is left as it was; `factor` does not read it.
        a: (k, m).
        b: (k, n).

    Raises:
        ValueError: dtypes differ or are not float32/float64; `s` is read-only or contiguous in neither order.
    """
    _require_in_place(s, a, a if b is None else b)
    view, s_transposed = _fortran(s)
    if b is None or b is a:
        operand, a_transposed = _fortran(a)
        # BLAS: C ← C − op(X) op(X)ᵀ with op(X) = Aᵀ. The upper triangle of a C-ordered S is the lower one of
        # its view.
        blas.syrk(operand, view, trans=not a_transposed, lower=s_transposed)
        return
    # In Fortran order S −= AᵀB; on the view of a C-ordered S the same statement reads Sᵀ −= BᵀA.
    left, right = (b, a) if s_transposed else (a, b)
    x, x_transposed = _fortran(left)
    y, y_transposed = _fortran(right)
    blas.gemm(x, y, view, trans_a=not x_transposed, trans_b=y_transposed)


def factor(s: Tile) -> Tile:
    """Upper-triangular U with S = UᵀU, in the memory of `s`; only the upper triangle of `s` is read.

    Returns:
        (m, m) in the order of `s`, zeros below the diagonal.

    Raises:
        NotPositiveDefinite: with the local pivot and its value; `s` is then half overwritten.
        ValueError: as `update`.
    """
    factor_upper(s)
    for row in range(1, len(s)):
        s[row, :row] = 0
    return s


def factor_upper(s: Tile) -> None:
    """As `factor`, but below the diagonal `s` is neither read nor written."""
    _require_in_place(s, s)
    view, transposed = _fortran(s)
    info = blas.potrf(view, lower=transposed)
    diagonal = np.diagonal(s)
    if info == 0:
        # LAPACKs differ in whether a NaN counts as "not positive"; here it always does.
        bad = np.flatnonzero(~np.isfinite(diagonal))
        info = int(bad[0]) + 1 if bad.size else 0
    if info > 0:
        # LAPACK leaves the Schur complement that it could not take the root of in its place on the diagonal.
        raise NotPositiveDefinite(info - 1, float(diagonal[info - 1]))


def invert_upper(u: Tile) -> None:
    """U⁻¹ in the memory of a nonsingular upper-triangular U; below the diagonal nothing is read or written.

    Raises:
        ValueError: as `update`.
    """
    _require_in_place(u, u)
    view, transposed = _fortran(u)
    blas.trtri(view, lower=transposed)


def solve_row(u: Tile, s: Tile) -> Tile:
    """U^{-T} S in the memory of `s`: turns an updated off-diagonal tile into a tile of the factor.

    Args:
        u: (m, m) upper triangular, nonsingular.
        s: (m, n), overwritten.
    """
    return _solve_triangular(u, s, transposed=True)


def solve_column(u: Tile, s: Tile) -> Tile:
    """U^{-1} S in the memory of `s`: the step of back substitution. Arguments as in `solve_row`."""
    return _solve_triangular(u, s, transposed=False)


class HostSteps:
    """A tile of the factor in the making (see `ntk.linalg.tile_jax`).

    Args:
        a: A_ij, (m, n) float32 or float64; not changed.
        shift: λ of A + λI, on a diagonal tile.
        dtype: of the factor; that of `a` by default.
    """

    def __init__(self, a: Tile, shift: float = 0.0, dtype: Any = None):
        self._s = np.array(a, dtype=dtype, order="C")
        if shift:
            self._s[np.diag_indices_from(self._s)] += shift

    def update(self, a: Tile, b: Tile | None = None) -> None:
        """S ← S − AᵀB, or S − AᵀA."""
        update(self._s, a, b)

    def factor(self) -> Tile:
        """U with S = UᵀU; raises as `factor`."""
        return factor(self._s)

    def solve_row(self, u: Tile) -> Tile:
        """U^{-T} S."""
        return solve_row(u, self._s)


def log_determinant(u: Tile) -> float:
    """2 Σ log u_kk in float64: what the diagonal tile `u` contributes to log det A = Σ_i
    log_determinant(U_ii)."""
    return 2.0 * float(np.sum(np.log(np.diagonal(u).astype(np.float64))))


def cholesky(matrix: NDArray[np.floating], blocks: Sequence[slice]) -> NDArray[np.floating]:
    """The whole factorisation on a matrix in memory, tile by tile: the plain form of the out-of-core one.

    Args:
        matrix: (n, n) symmetric, upper triangle read, not changed.
        blocks: row slices covering 0 … n.

    Returns:
        (n, n) upper triangular U with A = UᵀU.

    Raises:
        NotPositiveDefinite: its pivot counted in `matrix`.
    """
    u = np.zeros_like(matrix, order="C")
    for j, columns in enumerate(blocks):
        for i, rows in enumerate(blocks[: j + 1]):
            s = matrix[rows, columns].copy(order="C")
            for above in blocks[:i]:
                left = np.ascontiguousarray(u[above, rows])
                update(s, left, left if i == j else np.ascontiguousarray(u[above, columns]))
            if i < j:
                u[rows, columns] = solve_row(np.ascontiguousarray(u[rows, rows]), s)
                continue
            try:
                u[rows, columns] = factor(s)
            except NotPositiveDefinite as failure:
                raise failure.within(rows) from None
    return u


def _solve_triangular(u: Tile, s: Tile, *, transposed: bool) -> Tile:
    _require_in_place(s, u)
    triangle, u_transposed = _fortran(u)
    view, s_transposed = _fortran(s)
    # op(U) X = S; on the view of a C-ordered S this is Xᵀ op(U)ᵀ = Sᵀ, a solve from the right.
    flip = transposed ^ u_transposed ^ s_transposed
    blas.trsm(triangle, view, right=s_transposed, lower=u_transposed, trans=flip)
    return s


def _fortran(x: Tile) -> tuple[Tile, bool]:
    """A Fortran-ordered array of the same entries and whether it is the transpose of `x`; a view when
    possible."""
    if x.flags.f_contiguous:
        return x, False
    if x.flags.c_contiguous:
        return x.T, True
    return np.asfortranarray(x), False


def _require_in_place(s: Tile, *operands: Tile) -> None:
    if s.dtype not in (np.float32, np.float64) or any(x.dtype != s.dtype for x in operands):
        names = ", ".join(str(x.dtype) for x in (s, *operands))
        raise ValueError(f"tiles must all be float32 or all be float64, got {names}")
    if not s.flags.writeable or not s.flags.forc:
        raise ValueError(
            f"a tile updated in place must be writable and contiguous, got shape {s.shape},"
            f" strides {s.strides}, writable {s.flags.writeable}; pass a copy"
        )
