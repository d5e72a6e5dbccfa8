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

Strip = Callable[[jax.Array, np.ndarray, np.ndarray], dict[str, jax.Array]]


def padded_to(rows: int, multiple: int) -> int:
    """The least multiple that is not below `rows`."""
    return -(-rows // multiple) * multiple


@dataclass(frozen=True, slots=True)
class Vectors:
    """Rows of inputs over the root of their length, and their mean squares, zeros below: BLAS adds in an order that
    depends on the shape, which is therefore the same for every tile.

    scaled: (rows, channels), whole strips of them. variances: (rows,). count: rows that are inputs. width: columns of a
    strip.
    """

    scaled: np.ndarray
    variances: np.ndarray
    count: int
    width: int

    @staticmethod
    def of(x: np.ndarray, dtype: np.dtype, tile: int) -> Vectors:
        """x (n ≤ tile, channels) in the precision of `dtype`."""
        width = padded_to(tile, MULTIPLE)
        scaled = np.zeros((padded_to(width, min(STRIP, width)), x.shape[1]), dtype)
        np.multiply(x, x.shape[1] ** -0.5, out=scaled[: len(x)], dtype=dtype, casting="unsafe")
        return Vectors(scaled, np.einsum("ij,ij->i", scaled, scaled), len(x), width)


@lru_cache(maxsize=256)
def strip_kernel(layer: Layer, names: tuple[str, ...], channels: int) -> Strip:
    """(products (strip, width), variances of the rows, variances of the columns) → kernels with NaN in doubt."""

    def run(products: jax.Array, var1: jax.Array, var2: jax.Array) -> dict[str, jax.Array]:
        values, doubt = kernel_of_products(layer, products, var1, var2, channels, names)
        return {name: jnp.where(doubt, jnp.nan, value) for name, value in values.items()}

    return jax.jit(run)


def outer_in_strips(
    run: Strip, names: tuple[str, ...], side1: Vectors, side2: Vectors, *, symmetric: bool
) -> dict[str, np.ndarray]:
    """The kernels of all pairs by name, (n1, n2); of a symmetric tile those above the diagonal, the others to rounding.

    Call it where 64-bit types are enabled.
    """
    width = side1.width
    height = min(STRIP, width)
    values = {name: np.empty((side1.count, side2.count), side1.scaled.dtype) for name in names}
    rows = padded_to(side1.count, height)
    products = _scratch(len(side1.scaled), width, side1.scaled.dtype)
    if symmetric:  # NumPy then computes one half
        rows = width
    np.matmul(side1.scaled[:rows], side2.scaled[:width].T, out=products[:rows])
    for top in range(0, side1.count, height):
        strip = run(
            jax.device_put(products[top : top + height], may_alias=True),
            side1.variances[top : top + height],
            side2.variances[:width],
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
