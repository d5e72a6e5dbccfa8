"""Products and norms of a symmetric matrix of which only the upper tiles exist, in one pass over them.

Each off-diagonal tile is used twice per read: y_i += K_ij x_j and y_j += K_ijᵀ x_i. Sums run in float64
whatever the dtype of the tiles. Tiles may come in any order, but each exactly once: a pass that misses or
repeats a tile raises instead of returning a plausible number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        _accumulate(product, blocks[i], blocks[j], tile.astype(np.float64, copy=False), x)
    return product.reshape(vectors.shape)


def symmetric_norms(tiles: Iterable[KeyedTile], blocks: Sequence[slice]) -> Norms:
    """Trace, Frobenius norm and largest absolute row sum; arguments and errors as in `symmetric_product`."""
    return symmetric_pass(tiles, blocks, np.empty((blocks[-1].stop, 0)))[1]


def symmetric_pass(
    tiles: Iterable[KeyedTile], blocks: Sequence[slice], vectors: NDArray
) -> tuple[NDArray[np.float64], Norms]:
    """`symmetric_product` and `symmetric_norms` from one reading of the tiles."""
    x, product = _vectors(blocks, vectors)
    row_sums = np.zeros(len(x))
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
    norms = Norms(len(x), trace, math.sqrt(squares), float(row_sums.max()))
    return product.reshape(vectors.shape), norms


def _accumulate(product: NDArray, rows: slice, columns: slice, tile: NDArray, x: NDArray) -> None:
    product[rows] += tile @ x[columns]
    if rows != columns:
        product[columns] += tile.T @ x[rows]


def _vectors(blocks: Sequence[slice], vectors: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = blocks[-1].stop
    if vectors.shape[0] != n:
        raise ValueError(f"the matrix has {n} rows, the vectors have {vectors.shape[0]}")
    width = vectors.shape[1] if vectors.ndim == 2 else 1
    x = np.asarray(vectors, np.float64).reshape(n, width)
    return x, np.zeros((n, width))


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
