"""Tiles of networks of vectors on a CPU: products by BLAS, then all layers in one loop of XLA's over a strip of rows.

BLAS because XLA's own product takes up to 1.3 times as long, strips because arrays as large as a tile would be mapped
anew, page by page, for every tile: the products have their memory for good, a strip's results are small enough for the
allocator to hand out again.

BLAS adds in an order that depends on the shape of a product, on how many threads share it, and at the edges on the
place of an entry. So a tile is multiplied in blocks of one shape, the last one padded: an entry depends on its two
rows and on their places in their blocks, and not on how many blocks are computed together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
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

BLOCK = 1024
"""The most rows of a block: smaller ones take BLAS up to a tenth longer, which copies their rows for each product."""

STRIP = 256
"""The most rows of a strip."""

MULTIPLE = 64
"""The rows of a block are rounded up to this."""

Strip = Callable[[jax.Array, np.ndarray, np.ndarray, np.ndarray], dict[str, jax.Array]]


def padded_to(rows: int, multiple: int) -> int:
    """The least multiple that is not below `rows`."""
    return -(-rows // multiple) * multiple


def shared_out(rows: int, most: int, multiple: int = 1) -> int:
    """The size of parts that hold `rows`, as few as there can be of `most` rows each, in `multiple`s."""
    return padded_to(-(-rows // -(-rows // most)), multiple)


def block_rows(tile: int) -> int:
    """Rows of the blocks of a tile."""
    return shared_out(tile, BLOCK, MULTIPLE)


@dataclass(frozen=True, slots=True)
class BlockOfRows:
    """Rows of inputs and their mean squares, zeros below.

    x: (rows of a block, channels), the inputs themselves, or over √channels (`divided`) where their squares would
    overflow. mean_squares: (rows,), whole strips of them. count: rows that are inputs.
    """

    x: np.ndarray
    mean_squares: np.ndarray
    divided: bool
    count: int

    @staticmethod
    def of(x: np.ndarray, dtype: np.dtype, size: int) -> BlockOfRows:
        """x (n ≤ size, channels) in the precision of `dtype`; no copy of a whole block that is in it already."""
        count, channels = x.shape
        if count == size and x.dtype == dtype and x.flags.c_contiguous:
            padded = x
        else:
            padded = np.zeros((size, channels), dtype)
            padded[:count] = x
        with np.errstate(over="ignore"):
            squares = np.einsum("ij,ij->i", padded, padded)
        divided = not np.isfinite(squares).all()
        if divided:
            padded = padded * np.asarray(channels**-0.5, dtype)
            squares = np.einsum("ij,ij->i", padded, padded)
        height = shared_out(size, STRIP)
        mean_squares = np.zeros(padded_to(size, height), dtype)
        mean_squares[:size] = squares if divided else squares / channels
        return BlockOfRows(padded, mean_squares, divided, count)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The rows of one side of a tile in blocks of one shape."""

    blocks: tuple[BlockOfRows, ...]
    count: int
    dtype: np.dtype

    @staticmethod
    def of(x: np.ndarray, dtype: np.dtype, size: int) -> Vectors:
        """x (n, channels) in the precision of `dtype`, in blocks of `size` rows."""
        parts = (x[top : top + size] for top in range(0, len(x), size))
        return Vectors(tuple(BlockOfRows.of(part, dtype, size) for part in parts), len(x), dtype)


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
    run: Strip, names: tuple[str, ...], side1: Vectors, side2: Vectors, blocks: Iterable[tuple[int, int]]
) -> dict[str, np.ndarray]:
    """The kernels by name, (n1, n2), in some blocks of the rows of either side; what is in the others has no meaning.

    Call it where 64-bit types are enabled.
    """
    values = {name: np.empty((side1.count, side2.count), side1.dtype) for name in names}
    for i, j in blocks:
        one, two = side1.blocks[i], side2.blocks[j]
        size = len(one.x)
        here = np.s_[i * size : i * size + one.count, j * size : j * size + two.count]
        _block(run, one, two, {name: value[here] for name, value in values.items()})
    return values


def _block(run: Strip, one: BlockOfRows, two: BlockOfRows, out: dict[str, np.ndarray]) -> None:
    (size, channels), dtype = one.x.shape, one.x.dtype
    height = shared_out(size, STRIP)
    products = _scratch(len(one.mean_squares), size, dtype)
    scale = np.asarray(channels ** (-0.5 * ((not one.divided) + (not two.divided))), dtype)
    # Of a block with itself NumPy computes one half.
    np.matmul(one.x, two.x.T, out=products[:size])
    for top in range(0, one.count, height):
        strip = run(
            jax.device_put(products[top : top + height], may_alias=True),
            scale,
            one.mean_squares[top : top + height],
            two.mean_squares[:size],
        )
        for name, value in out.items():
            here = value[top : top + height]
            here[...] = np.asarray(strip[name])[: len(here), : two.count]


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
