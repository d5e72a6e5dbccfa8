"""One step of narrowing a band: a block is made upper triangular, and the reflections are applied wherever they reach.

The blocks are small, and there are n²/(2 b d) of them: what NumPy spends around each of fifteen products, holding the
interpreter lock, would be as long as the products themselves and keep a second thread from working. So everything is
done by BLAS and LAPACK in the band's own memory, with arguments that are made once.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntk.linalg.blas import routine

FLOAT64 = np.dtype(np.float64)

_one, _zero, _minus, _minus_half = (byref(ctypes.c_double(x)) for x in (1.0, 0.0, -1.0, -0.5))
_no, _transposed, _left, _right, _lower, _upper, _all = (
    byref(ctypes.c_char(letter)) for letter in (b"N", b"T", b"L", b"R", b"L", b"U", b"A")
)


class BulgeChaser:
    """Eliminates blocks of a band in place, with working space of its own: one for each thread.

    Args:
        work: (2 b, n), Fortran-ordered: entry (i, j) of the matrix, i ≥ j, lies at [i − j, j]. As columns have length
            2 b, rows i … of column j begin at i + j (2 b − 1): every block below the diagonal is a matrix in Fortran
            order with leading dimension 2 b − 1.
        columns: d, of every block.
    """

    def __init__(self, work: NDArray[np.float64], columns: int):
        if not work.flags.f_contiguous or not work.flags.writeable or work.dtype != FLOAT64:
            raise ValueError("a band is a writable Fortran-contiguous float64 array")
        self._work = work  # not let go of while its address is used
        self._origin, self._n = work.ctypes.data, work.shape[1]
        self._b, self._d = len(work) // 2, columns
        b, d = self._b, columns
        self._leading = _integer(2 * b - 1)
        # Of V, X, Y, and of the product that is under way; T, Xᵀ Y and working space of dgeqrt.
        self._space = np.empty(4 * b * d + 2 * d * d + max(d * d, d * b), order="F")
        offsets = np.cumsum([0, b * d, b * d, b * d, b * d, d * d, d * d]) * FLOAT64.itemsize
        self._v, self._x, self._y, self._p, self._t, self._m, self._qr = map(
            int, self._space.ctypes.data + offsets
        )
        names = ("gemm", "symm", "syr2k", "trmm", "geqrt", "lacpy", "laset")
        calls = [routine(name, FLOAT64) for name in names]
        self._gemm, self._symm, self._syr2k, self._trmm, self._geqrt, self._lacpy, self._laset = (
            call for call, _, _ in calls
        )
        self._info = calls[0][1](0)

    def eliminate(self, rows: slice, columns: slice) -> None:
        """Make the block upper triangular by reflections Q = I − V T Vᵀ of `rows`, at most b, applied from both sides.

        With X = V T: what stands between becomes Z − V (Xᵀ Z), the square S − V Wᵀ − W Vᵀ with W = Y − ½ V (Xᵀ Y),
        Y = S X, and what lies below it U − (U X) Vᵀ.
        """
        n, b, ld = self._n, self._b, self._leading
        v, x, y, p, t = self._v, self._x, self._y, self._p, self._t
        m, d, height = rows.stop - rows.start, self._d, _integer(b)
        r, width, size = _integer(min(m, d)), _integer(d), _integer(m)
        block = self._at(rows.start, columns.start)
        self._geqrt(size, width, r, block, ld, t, width, self._qr, byref(self._info))
        if self._info.value != 0:
            raise ValueError(f"dgeqrt refused its argument {-self._info.value}")
        self._lacpy(_lower, size, r, block, ld, v, height)
        self._laset(_upper, r, r, _zero, _one, v, height)
        if m > 1:
            below, first = _integer(m - 1), block + FLOAT64.itemsize
            self._laset(_lower, below, _integer(min(m - 1, d)), _zero, _zero, first, ld)
        self._lacpy(_all, size, r, v, height, x, height)
        self._trmm(_right, _upper, _no, _no, size, r, _one, t, width, x, height)
        if rows.start > columns.stop:
            z, between = self._at(rows.start, columns.stop), _integer(rows.start - columns.stop)
            self._gemm(_transposed, _no, r, between, size, _one, x, height, z, ld, _zero, p, width)
            self._gemm(_no, _no, size, between, r, _minus, v, height, p, width, _one, z, ld)
        # Above the main diagonal the view shows entries of other columns.
        square, inner = self._at(rows.start, rows.start), self._m
        self._symm(_left, _lower, size, r, _one, square, ld, x, height, _zero, y, height)
        self._gemm(_transposed, _no, r, r, size, _one, x, height, y, height, _zero, inner, width)
        self._gemm(_no, _no, size, r, r, _minus_half, v, height, inner, width, _one, y, height)
        self._syr2k(_lower, _no, size, r, _minus, v, height, y, height, _one, square, ld)
        under = min(b, n - rows.stop)
        if under > 0:
            u, count = self._at(rows.stop, rows.start), _integer(under)
            self._gemm(_no, _no, count, r, size, _one, u, ld, x, height, _zero, p, height)
            self._gemm(_no, _transposed, count, size, r, _minus, p, height, v, height, _one, u, ld)

    def _at(self, i: int, j: int) -> int:
        """Address of entry (i, j), i ≥ j."""
        return self._origin + FLOAT64.itemsize * (i + j * (2 * self._b - 1))


@functools.cache
def _integer(value: int) -> Any:
    return byref(routine("gemm", FLOAT64)[1](value))
