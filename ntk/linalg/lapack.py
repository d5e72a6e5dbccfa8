"""LAPACK routines that SciPy links but does not wrap, called through its public table for Cython.

Called by ctypes they let go of the interpreter while they work, which the wrapped ones do not: a program that must hear
a signal meanwhile can.
"""

from __future__ import annotations

import ctypes
import functools
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


@functools.cache
def _routine(name: str, arguments: int):
    capsule = import_module("scipy.linalg.cython_lapack").__pyx_capi__[name]
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
    return signature(_pointer(capsule, _name(capsule)))


def geqrt(panel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Householder QR of a panel in one block, in place (dgeqrt; Elmroth & Gustavson 2000).

    Args:
        panel: (m, w), m ≥ 1, Fortran-contiguous; R above and V below the diagonal when this returns.

    Returns:
        T, (r, r) upper triangular, r = min(m, w); entries below the diagonal mean nothing.
    """
    m, w = panel.shape
    r = min(m, w)
    if not panel.flags.f_contiguous or not panel.flags.writeable or panel.dtype != np.float64:
        raise ValueError("a panel is a writable Fortran-contiguous float64 array")
    t, work = np.empty((r, r), order="F"), np.empty(r * w)
    integers = [ctypes.c_int(value) for value in (m, w, r, m, r, 0)]
    rows, columns, block, leading, t_leading, info = map(ctypes.byref, integers)
    _routine("dgeqrt", 9)(
        rows, columns, block, panel.ctypes.data, leading, t.ctypes.data, t_leading, work.ctypes.data, info
    )
    if integers[-1].value != 0:
        raise ValueError(f"dgeqrt refused its argument {-integers[-1].value}")
    return t


def tridiagonalise(band: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Band → tridiagonal by Givens rotations (dsbtrd; Kaufman 1984), about 6 n² b flops on one core.

    Args:
        band: ab[i, j] = A[j + i, j], (b + 1, n).

    Returns:
        Diagonal (n,) and off-diagonal (n − 1,).
    """
    ab = np.array(band, dtype=np.float64, order="F")
    n, kd = ab.shape[1], len(ab) - 1
    diagonal, off, work, q = np.empty(n), np.empty(max(n - 1, 1)), np.empty(n), np.empty(1)
    if kd == 0:
        return ab[0].copy(), np.zeros(max(n - 1, 0))
    integers = [ctypes.c_int(value) for value in (n, kd, kd + 1, 1, 0)]
    order, width, leading, one, info = map(ctypes.byref, integers)
    no, lower = ctypes.c_char(b"N"), ctypes.c_char(b"L")
    _routine("dsbtrd", 12)(
        ctypes.byref(no), ctypes.byref(lower), order, width, ab.ctypes.data, leading, diagonal.ctypes.data,
        off.ctypes.data, q.ctypes.data, one, work.ctypes.data, info,
    )  # fmt: skip
    if integers[-1].value != 0:
        raise ValueError(f"dsbtrd refused its argument {-integers[-1].value}")
    return diagonal, off[: n - 1]
