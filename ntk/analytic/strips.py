"""Tiles of networks of vectors on a CPU: products by BLAS, then all layers in one loop of XLA's over a strip of rows.

BLAS because XLA's own product takes up to 1.3 times as long, strips because arrays as large as a tile would be mapped
anew, page by page, for every tile: the products have their memory for good, a strip's results are small enough for the
allocator to hand out again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from ntk.analytic.kernel import kernel_of_products
from ntk.stax.layer import Layer

STRIP = 256
"""Rows of a strip."""

MULTIPLE = 64
"""The width of a tile is rounded up to this."""

Strip = Callable[[jax.Array, np.ndarray, np.ndarray, np.ndarray], dict[str, jax.Array]]


def padded_to(rows: int, multiple: int) -> int:
    """The least multiple that is not below `rows`."""
    return -(-rows // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Vectors:
    """Rows of inputs and their mean squares, zeros below: BLAS adds in an order that depends on the shape, which is
    therefore the same for every tile.

    x: (width, channels), the inputs themselves, or over √channels (`divided`) where their squares would overflow.
    mean_squares: (rows,), whole strips of them. count: rows that are inputs.
    """

    x: np.ndarray
    mean_squares: np.ndarray
    divided: bool
    count: int

    @staticmethod
    def of(x: np.ndarray, dtype: np.dtype, tile: int) -> Vectors:
        """x (n ≤ tile, channels) in the precision of `dtype`; no copy of a whole tile that is in it already."""
        count, channels = x.shape
        width = padded_to(tile, MULTIPLE)
        if count == width and x.dtype == dtype and x.flags.c_contiguous:
            padded = x
        else:
            padded = np.zeros((width, channels), dtype)
            padded[:count] = x
        with np.errstate(over="ignore"):
            squares = np.einsum("ij,ij->i", padded, padded)
        divided = not np.isfinite(squares).all()
        if divided:
            padded = padded * np.asarray(channels**-0.5, dtype)
            squares = np.einsum("ij,ij->i", padded, padded)
        mean_squares = np.zeros(padded_to(width, min(STRIP, width)), dtype)
        mean_squares[:width] = squares if divided else squares / channels
        return Vectors(padded, mean_squares, divided, count)


@lru_cache(maxsize=256)
def strip_kernel(layer: Layer, names: tuple[str, ...], channels: int) -> Strip:
    """(products (strip, width), what they are to be multiplied by, mean squares of the rows and of the columns) →
    kernels with NaN in doubt."""

    def run(
        products: jax.Array, scale: jax.Array, square1: jax.Array, square2: jax.Array
    ) -> dict[str, jax.Array]:
        values, doubt = kernel_of_products(layer, products * scale, square1, square2, channels, names)
        return {name: jnp.where(doubt, jnp.nan, value) for name, value in values.items()}

    return jax.jit(run)


def outer_in_strips(
    run: Strip, names: tuple[str, ...], side1: Vectors, side2: Vectors, *, symmetric: bool
) -> dict[str, np.ndarray]:
    """The kernels of all pairs by name, (n1, n2); of a symmetric tile those above the diagonal, the others to rounding.

    Call it where 64-bit types are enabled.
    """
    (width, channels), dtype = side1.x.shape, side1.x.dtype
    height = min(STRIP, width)
    values = {name: np.empty((side1.count, side2.count), dtype) for name in names}
    products = _scratch(len(side1.mean_squares), width, dtype)
    scale = np.asarray(channels ** (-0.5 * ((not side1.divided) + (not side2.divided))), dtype)
    # Of a symmetric tile NumPy computes one half.
    rows = width if symmetric else min(padded_to(side1.count, height), width)
    np.matmul(side1.x[:rows], side2.x.T, out=products[:rows])
    for top in range(0, side1.count, height):
        strip = run(
            jax.device_put(products[top : top + height], may_alias=True),
            scale,
            side1.mean_squares[top : top + height],
            side2.mean_squares[:width],
        )
        for name, value in values.items():
            here = value[top : top + height]
            here[...] = np.asarray(strip[name])[: len(here), : side2.count]
    return values


_kept = threading.local()


def _scratch(rows: int, columns: int, dtype: np.dtype) -> np.ndarray:
    """This thread's array of products, which JAX can take without a copy."""
    known: np.ndarray | None = getattr(_kept, "products", None)
    if known is None or known.shape != (rows, columns) or known.dtype != dtype:
        known = _kept.products = aligned((rows, columns), dtype)
        known.fill(0)
    return known


def aligned(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array that starts at a multiple of 64 bytes, which JAX can take over without a copy."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


_limits_lock = threading.Lock()
_limits: list[Any] = [0, None]
"""How many callers want BLAS in one thread, and its limits before the first of them."""


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS in one thread for each caller of this process, for those who compute several tiles at once themselves."""
    with _limits_lock:
        _limits[0] += 1
        if _limits[0] == 1:
            _limits[1] = threadpool_limits(1, "blas")
    try:
        yield
    finally:
        with _limits_lock:
            _limits[0] -= 1
            if _limits[0] == 0:
                _limits[1].restore_original_limits()
