"""The tiles of a symmetric matrix: which exist, what they cover, in what order they are visited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TileGrid:
    """An n×n symmetric matrix cut into square tiles, of which only the upper ones (i ≤ j) exist.

    Invariant: the tiles of ``upper()``, with the transposes of those with i < j, cover every entry of the
    matrix exactly once. The last row and column of tiles are smaller when ``tile`` does not divide ``n``. A
    matrix that grows keeps the keys of its whole tiles.

    Args:
        n: order of the matrix, ≥ 1.
        tile: rows and columns of a whole tile, ≥ 1; it may exceed n (one tile then).

    Raises:
        ValueError: n or tile is not positive.
    """

    n: int
    tile: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.tile < 1:
            raise ValueError(f"a tile grid needs n ≥ 1 and tile ≥ 1, got n = {self.n}, tile = {self.tile}")

    @property
    def blocks(self) -> int:
        """Number of tiles along one side."""
        return -(-self.n // self.tile)

    @property
    def count(self) -> int:
        """Number of upper tiles, blocks (blocks + 1) / 2."""
        return self.blocks * (self.blocks + 1) // 2

    def rows(self, block: int) -> slice:
        """Rows (equally columns) of the matrix that lie in a block.

        Raises:
            IndexError: there is no such block.
        """
        if not 0 <= block < self.blocks:
            raise IndexError(f"block {block} is outside 0…{self.blocks - 1}")
        return slice(block * self.tile, min((block + 1) * self.tile, self.n))

    def size(self, block: int) -> int:
        """Number of rows in a block."""
        rows = self.rows(block)
        return rows.stop - rows.start

    def shape(self, i: int, j: int) -> tuple[int, int]:
        """Shape of tile (i, j); smaller than ``tile`` at the edge."""
        return self.size(i), self.size(j)

    def entries(self, i: int, j: int) -> int:
        """Number of entries of tile (i, j)."""
        return self.size(i) * self.size(j)

    def upper(self) -> Iterator[tuple[int, int]]:
        """The upper tiles (i ≤ j), one row block after the other, each from its diagonal tile rightwards."""
        blocks = self.blocks
        return ((i, j) for i in range(blocks) for j in range(i, blocks))

    def index(self, i: int, j: int) -> int:
        """Position of tile (i, j) in ``upper()``.

        Raises:
            IndexError: (i, j) is not an upper tile.
        """
        if not 0 <= i <= j < self.blocks:
            raise IndexError(f"({i}, {j}) is not an upper tile of {self.blocks} × {self.blocks} blocks")
        return i * self.blocks - i * (i - 1) // 2 + (j - i)
