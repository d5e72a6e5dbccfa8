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
from ntk.analytic.range import blanked
from ntk.device import compiled
from ntk.stax.layer import Layer

BLOCK = 1024
"""The most rows of a block: smaller ones take BLAS up to a tenth longer, which copies their rows for each product."""

STRIP = 512
"""The most rows of a strip."""

MULTIPLE = 64
"""The rows of a block are rounded up to this."""

Arrays = dict[str, np.ndarray]
"""Kernels by name."""

Strip = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]


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
    overflow. mean_squares: (rows of a block,); in_strips: the same of each strip. count: rows that are inputs.
    """

    x: np.ndarray
    mean_squares: jax.Array
    in_strips: tuple[jax.Array, ...]
    divided: bool
    count: int

    @staticmethod
    def of(x: np.ndarray, dtype: np.dtype, size: int) -> BlockOfRows:
        """x (n ≤ size, channels) in the precision of `dtype`; no copy of a whole block that is in it already.

        Call it where 64-bit types are enabled.
        """
        count, channels = x.shape
        if count == size and x.dtype == dtype and x.flags.c_contiguous:
            padded = x
        else:
            padded = np.zeros((size, channels), dtype)
            padded[:count] = x
        padded = blanked(padded)
        with np.errstate(over="ignore"):
            squares = np.einsum("ij,ij->i", padded, padded)
        divided = bool(np.isinf(squares).any())
        if divided:
            padded = padded * np.asarray(channels**-0.5, dtype)
            squares = np.einsum("ij,ij->i", padded, padded)
        height = shared_out(size, STRIP)
        squares = squares if divided else squares / np.asarray(channels, dtype)
        padding = np.zeros(padded_to(size, height) - size, dtype)
        strips = np.split(np.concatenate([squares, padding]), range(height, size, height))
        # To hand an array over to JAX takes as long as thousands of pairs.
        return BlockOfRows(
            padded, jax.device_put(squares), tuple(map(jax.device_put, strips)), divided, count
        )


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

    return compiled(run)


def outer_in_strips(
    run: Strip,
    out: Arrays,
    side1: Vectors,
    side2: Vectors,
    blocks: Iterable[tuple[int, int]],
    *,
    symmetric: bool,
    below: Arrays | None = None,
) -> list[tuple[int, int]]:
    """The kernels by name in some blocks of the rows of either side, into `out` (n1, n2), and transposed into `below`
    (n2, n1); returns the blocks that may have holes. Of a `symmetric` tile what is below the diagonal has no meaning.

    Call it where 64-bit types are enabled.
    """
    holed: list[tuple[int, int]] = []
    for i, j in blocks:
        one, two = side1.blocks[i], side2.blocks[j]
        size = len(one.x)
        rows, columns = slice(i * size, i * size + one.count), slice(j * size, j * size + two.count)
        here = {name: value[rows, columns] for name, value in out.items()}
        there = None if below is None else {name: value[columns, rows] for name, value in below.items()}
        if _block(run, one, two, here, there, half=symmetric and i == j):
            holed.append((i, j))
    return holed


def _block(
    run: Strip, one: BlockOfRows, two: BlockOfRows, out: Arrays, below: Arrays | None, *, half: bool
) -> bool:
    """One block, or its upper half, into its place; whether it may have holes."""
    (size, channels), dtype = one.x.shape, one.x.dtype
    height = shared_out(size, STRIP)
    products, strips = _scratch(len(one.in_strips) * height, size, height, dtype)
    scale = _scale(channels, (not one.divided) + (not two.divided), dtype)
    # NumPy would compute half of a block with itself too, but copy that to the other half, entry by entry.
    for top in range(0, size, height) if half else ():
        np.matmul(one.x[top : top + height], two.x[top:].T, out=products[top : min(top + height, size), top:])
    if not half:
        np.matmul(one.x, two.x.T, out=products[:size])
    holed = half
    for i, top in enumerate(range(0, one.count, height)):
        strip = run(_on_device(products, strips, i), scale, one.in_strips[i], two.mean_squares)
        rows = slice(top, min(top + height, one.count))
        # A strip is copied to both its places, and looked at, while it is in the cache.
        for name, value in out.items():
            found = np.asarray(strip[name])[: rows.stop - top, : two.count]
            value[rows] = found
            if below is not None:
                # JAX transposes four times as fast as NumPy.
                below[name][:, rows] = np.asarray(jax.device_put(found.T))
            holed = holed or bool(np.isnan(found.min()))
    return holed


@lru_cache
def _scale(channels: int, roots: int, dtype: np.dtype) -> jax.Array:
    return jax.device_put(np.asarray(channels ** (-0.5 * roots), dtype))


_kept = threading.local()


def _scratch(
    rows: int, columns: int, height: int, dtype: np.dtype
) -> tuple[np.ndarray, list[jax.Array | None]]:
    """This thread's array of products, and the same memory as JAX's, strip by strip (`_on_device`)."""
    known: tuple[np.ndarray, list[jax.Array | None]] | None = getattr(_kept, "products", None)
    if known is None or known[0].shape != (rows, columns) or known[0].dtype != dtype:
        products = aligned((rows, columns), dtype)
        products.fill(0)
        known = _kept.products = products, _shared(products, height)
    return known


def _shared(products: np.ndarray, height: int) -> list[jax.Array | None]:
    """Arrays of JAX's that are strips of `products`, whatever is written there later; None where JAX took a copy."""
    strips = (products[top : top + height] for top in range(0, len(products), height))
    made = ((strip, jax.device_put(strip, may_alias=True)) for strip in strips)
    return [array if array.unsafe_buffer_pointer() == strip.ctypes.data else None for strip, array in made]


def _on_device(products: np.ndarray, strips: list[jax.Array | None], i: int) -> jax.Array:
    """The i-th strip as it is now."""
    height = len(products) // len(strips)
    known = strips[i]
    return jax.device_put(products[i * height : (i + 1) * height]) if known is None else known


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
