"""Products and norms of a symmetric matrix of which only the upper tiles exist, in one pass over them.

Each off-diagonal tile is used twice per read: y_i += K_ij x_j and y_j += K_ijᵀ x_i. Sums run in float64
whatever the dtype of the tiles; a float32 tile is widened a strip at a time, in the cache: a whole float64 copy would
cost more than the product. Tiles may come in any order, but each exactly once: a pass that misses or
repeats a tile raises instead of returning a plausible number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STRIP_BYTES = 1 << 20
"""Size in float64 of the strip of a tile that is multiplied at once: it stays in the cache between its two uses."""

KeyedTile = tuple[tuple[int, int], NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class Norms:
    """Norms of a symmetric matrix K, from its entries in float64.

    Attributes:
        n: number of rows.
        trace: Σ K_ii.
        frobenius: √(Σ K_ij²).
        row_sum: max_i Σ_j |K_ij|, at least as large as every |λ| (Gershgorin).
    """

    n: int
    trace: float
    frobenius: float
    row_sum: float

    @property
    def mean_diagonal(self) -> float:
        return self.trace / self.n

    def shifted(self, ridge: float) -> Norms:
        """The norms of K + ridge·I, without another pass (row_sum: an upper bound of it)."""
        squared = self.frobenius**2 + 2 * ridge * self.trace + self.n * ridge**2
        return Norms(
            self.n, self.trace + self.n * ridge, math.sqrt(max(squared, 0.0)), self.row_sum + abs(ridge)
        )


def symmetric_product(
    tiles: Iterable[KeyedTile], blocks: Sequence[slice], vectors: NDArray
) -> NDArray[np.float64]:
    """K X from the upper tiles of K.

    Args:
        tiles: ((i, j), K_ij) for every i ≤ j once, in any order; a diagonal tile is given whole.
        blocks: row slices covering 0 … n.
        vectors: X, shape (n,) or (n, r).

    Returns:
        float64, shape of `vectors`.

    Raises:
        ValueError: a tile is missing, repeated, below the diagonal or of the wrong shape.
    """
    x, product = _vectors(blocks, vectors)
    for (i, j), tile in _checked(tiles, blocks):
        _accumulate(product, blocks[i], blocks[j], tile, x)
    return product.T.reshape(vectors.shape)


def symmetric_norms(tiles: Iterable[KeyedTile], blocks: Sequence[slice]) -> Norms:
    """Trace, Frobenius norm and largest absolute row sum; arguments and errors as in `symmetric_product`."""
    return symmetric_pass(tiles, blocks, np.empty((blocks[-1].stop, 0)))[1]


def symmetric_pass(
    tiles: Iterable[KeyedTile], blocks: Sequence[slice], vectors: NDArray
) -> tuple[NDArray[np.float64], Norms]:
    """`symmetric_product` and `symmetric_norms` from one reading of the tiles."""
    x, product = _vectors(blocks, vectors)
    row_sums = np.zeros(x.shape[1])
    trace = 0.0
    squares = 0.0
    for (i, j), tile in _checked(tiles, blocks):
        tile = tile.astype(np.float64, copy=False)
        _accumulate(product, blocks[i], blocks[j], tile, x)
        squares += float(np.vdot(tile, tile)) * (1 if i == j else 2)
        magnitude = np.abs(tile)
        row_sums[blocks[i]] += magnitude.sum(axis=1)
        if i == j:
            trace += float(np.trace(tile))
        else:
            row_sums[blocks[j]] += magnitude.sum(axis=0)
    norms = Norms(x.shape[1], trace, math.sqrt(squares), float(row_sums.max()))
    return product.T.reshape(vectors.shape), norms


def accumulate_products(
    tile: NDArray[np.floating],
    x_columns: NDArray[np.float64],
    into_rows: NDArray[np.float64],
    x_rows: NDArray[np.float64] | None = None,
    into_columns: NDArray[np.float64] | None = None,
) -> None:
    """y_i += K_ij x_j and, in the same reading of the tile, y_j += K_ijᵀ x_i. Vectors are rows here: BLAS is faster so.

    Args:
        tile: K_ij, shape (p, q), float64 or float32.
        x_columns: x_j transposed, shape (r, q).
        into_rows: y_i transposed, shape (r, p), added to.
        x_rows, into_columns: x_i and y_j transposed, (r, p) and (r, q); None for a tile on the diagonal.
    """
    p, q = tile.shape
    height = max(1, STRIP_BYTES // (8 * q))
    scratch = None if tile.dtype == np.float64 else np.empty((min(height, p), q))
    for start in range(0, p, height):
        rows = slice(start, min(start + height, p))
        strip = tile[rows]
        if scratch is not None:
            np.copyto(scratch[: len(strip)], strip)
            strip = scratch[: len(strip)]
        into_rows[:, rows] += x_columns @ strip.T
        if x_rows is not None and into_columns is not None:
            into_columns += x_rows[:, rows] @ strip


class HostProduct:
    """A part of a product K X from some tiles of K, each used twice.

    Args:
        x: the rows of X that are needed, transposed: (r, n), float64.
    """

    def __init__(self, x: NDArray[np.float64]):
        self._x = np.ascontiguousarray(x)
        self._product = np.zeros_like(self._x)

    def take(self, tile: NDArray[np.floating], rows: slice, columns: slice, *, diagonal: bool) -> None:
        """Y_rows += K_tile X_columns and, off the diagonal, Y_columns += K_tileᵀ X_rows; slices of the n."""
        twice = () if diagonal else (self._x[:, rows], self._product[:, columns])
        accumulate_products(tile, self._x[:, columns], self._product[:, rows], *twice)

    def product(self) -> NDArray[np.float64]:
        """The part, transposed: (r, n)."""
        return self._product


def _accumulate(product: NDArray, rows: slice, columns: slice, tile: NDArray, x: NDArray) -> None:
    twice = (x[:, rows], product[:, columns]) if rows != columns else ()
    accumulate_products(tile, x[:, columns], product[:, rows], *twice)


def _vectors(blocks: Sequence[slice], vectors: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The vectors, transposed, (r, n), and room for the product."""
    n = blocks[-1].stop
    if vectors.shape[0] != n:
        raise ValueError(f"the matrix has {n} rows, the vectors have {vectors.shape[0]}")
    width = vectors.shape[1] if vectors.ndim == 2 else 1
    x = np.ascontiguousarray(np.asarray(vectors, np.float64).reshape(n, width).T)
    return x, np.zeros((width, n))


def _checked(tiles: Iterable[KeyedTile], blocks: Sequence[slice]) -> Iterator[KeyedTile]:
    seen: set[tuple[int, int]] = set()
    for (i, j), tile in tiles:
        if not 0 <= i <= j < len(blocks) or (i, j) in seen:
            raise ValueError(f"tile ({i}, {j}) is {'repeated' if (i, j) in seen else 'not an upper tile'}")
        shape = (blocks[i].stop - blocks[i].start, blocks[j].stop - blocks[j].start)
        if tile.shape != shape:
            raise ValueError(f"tile ({i}, {j}) has shape {tile.shape}, its blocks want {shape}")
        seen.add((i, j))
        yield (i, j), tile
    for j in range(len(blocks)):
        for i in range(j + 1):
            if (i, j) not in seen:
                raise ValueError(
                    f"tile ({i}, {j}) is missing: got {len(seen)} of {_count(blocks)} upper tiles"
                )


def _count(blocks: Sequence[slice]) -> int:
    return len(blocks) * (len(blocks) + 1) // 2
