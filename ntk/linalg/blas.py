"""The kernels of blocked factorisations, in place and without the interpreter lock.

SciPy's Python wrappers of BLAS and LAPACK hold the lock while they compute, so that no thread can read or write a tile
meanwhile. The same routines are exported for Cython (`scipy.linalg.cython_blas`, `cython_lapack`); called through
ctypes they let go of it.

Arrays are float32 or float64, two-dimensional and Fortran-contiguous, all of one dtype; that is the caller's to see to
(`ntk.linalg.tile_cholesky` does). Shapes are checked, because BLAS would write beyond the end.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def gemm(a: Array, b: Array, c: Array, *, trans_a: bool, trans_b: bool) -> None:
    """C ← C − op(A) op(B)."""
    m, k = a.shape[::-1] if trans_a else a.shape
    inner, n = b.shape[::-1] if trans_b else b.shape
    _require(inner == k and c.shape == (m, n), "gemm", a, b, c)
    if c.size:
        call, integer, real = routine("gemm", c.dtype)
        call(
            _flag("T" if trans_a else "N"), _flag("T" if trans_b else "N"),
            byref(integer(m)), byref(integer(n)), byref(integer(k)),
            byref(real(-1)), *_matrix(a, integer), *_matrix(b, integer), byref(real(1)), *_matrix(c, integer),
        )  # fmt: skip


def syrk(a: Array, c: Array, *, trans: bool, lower: bool) -> None:
    """C ← C − op(A) op(A)ᵀ on one triangle of C."""
    n, k = a.shape[::-1] if trans else a.shape
    _require(c.shape == (n, n), "syrk", a, c)
    if c.size:
        call, integer, real = routine("syrk", c.dtype)
        call(
            _flag("L" if lower else "U"), _flag("T" if trans else "N"), byref(integer(n)), byref(integer(k)),
            byref(real(-1)), *_matrix(a, integer), byref(real(1)), *_matrix(c, integer),
        )  # fmt: skip


def trsm(a: Array, b: Array, *, right: bool, lower: bool, trans: bool) -> None:
    """B ← op(A)⁻¹ B, or B ← B op(A)⁻¹ if `right`, for a triangular A."""
    m, n = b.shape
    order = n if right else m
    _require(a.shape == (order, order), "trsm", a, b)
    if b.size:
        call, integer, real = routine("trsm", b.dtype)
        call(
            _flag("R" if right else "L"), _flag("L" if lower else "U"), _flag("T" if trans else "N"), _flag("N"),
            byref(integer(m)), byref(integer(n)), byref(real(1)), *_matrix(a, integer), *_matrix(b, integer),
        )  # fmt: skip


def potrf(a: Array, *, lower: bool) -> int:
    """The Cholesky factor in one triangle of A; the other triangle is neither read nor written.

    Returns:
        0, or the order of the leading minor that is not positive definite (LAPACK's `info`).
    """
    n = a.shape[0]
    _require(a.shape == (n, n), "potrf", a)
    call, integer, _ = routine("potrf", a.dtype)
    info = integer(0)
    call(_flag("L" if lower else "U"), byref(integer(n)), *_matrix(a, integer), byref(info))
    return info.value


def trtri(a: Array, *, lower: bool) -> None:
    """The inverse of a triangle of A in its place; the other triangle is neither read nor written.

    Raises:
        ValueError: it is singular.
    """
    n = a.shape[0]
    _require(a.shape == (n, n), "trtri", a)
    call, integer, _ = routine("trtri", a.dtype)
    info = integer(0)
    call(_flag("L" if lower else "U"), _flag("N"), byref(integer(n)), *_matrix(a, integer), byref(info))
    if info.value:
        raise ValueError(f"trtri: entry {info.value} of the diagonal is zero")


LAPACK = frozenset({"potrf", "trtri", "geqrt", "lacpy", "laset"})
"""The routines that are not of BLAS."""


@functools.cache
def routine(name: str, dtype: np.dtype[Any]) -> tuple[Any, Any, Any]:
    """The routine for a dtype, and the ctypes of its integers and of its scalars. Its arguments are addresses."""
    letter, real = {"float32": ("s", ctypes.c_float), "float64": ("d", ctypes.c_double)}[dtype.name]
    module = import_module(f"scipy.linalg.cython_{'lapack' if name in LAPACK else 'blas'}")
    capsule = vars(module)["__pyx_capi__"][letter + name]
    # The name of the capsule is the signature in C, as "void (char *, int *, …)".
    signature = _CAPSULE_NAME(capsule)
    # SciPy is built with integers of 32 or of 64 bits.
    integer = ctypes.c_int if b" int *" in signature else ctypes.c_int64
    arguments = [ctypes.c_void_p] * (signature.count(b",") + 1)
    return ctypes.CFUNCTYPE(None, *arguments)(_CAPSULE_POINTER(capsule, signature)), integer, real


_CAPSULE_NAME = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_CAPSULE_POINTER = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _flag(letter: str) -> Any:
    return byref(ctypes.c_char(letter.encode()))


def _matrix(array: Array, integer: Any) -> tuple[int, Any]:
    """Address and leading dimension, as every routine takes them."""
    return array.ctypes.data, byref(integer(max(1, array.shape[0])))


def _require(fits: bool, routine: str, *arrays: Array) -> None:
    if not fits:
        raise ValueError(f"{routine}: shapes do not match: {', '.join(str(array.shape) for array in arrays)}")
