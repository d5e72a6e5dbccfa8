"""How one product of the Gram matrix with vectors is spread over workers: square patches of tiles, one task each.

The patches depend on the matrix alone, never on how many workers there are or which of them does what, and their
partial sums are added in a fixed order: a product is the same bit for bit whoever computed it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.plan.tiles import TileGrid

PATCH_BYTES = 256e6
"""Stored bytes of the tiles of a patch: about a tenth of a second of reading, long against a scheduler's 10 ms."""

MAX_SIDES = 48
"""No more patches along a side than this. All partial sums together are this many times the vectors."""


@dataclass(frozen=True, slots=True)
class Patches:
    """The tiles of a grid in square patches of `width` × `width` tiles, of which the upper ones (I ≤ J) exist.

    Invariant: the tiles of all patches of `upper()` are those of `grid.upper()`, each once.
    """

    grid: TileGrid
    width: int

    @classmethod
    def of(cls, grid: TileGrid, itemsize: int) -> Patches:
        """Patches of about `PATCH_BYTES`; `itemsize` is that of a stored entry."""
        total = itemsize * grid.n * (grid.n + 1) / 2
        sides = min(MAX_SIDES, grid.blocks, max(1, math.ceil(math.sqrt(2 * total / PATCH_BYTES))))
        return cls(grid, -(-grid.blocks // sides))

    @property
    def sides(self) -> int:
        """Number of patches along one side of the matrix."""
        return -(-self.grid.blocks // self.width)

    @property
    def rows_per_side(self) -> int:
        """Rows of a whole patch."""
        return self.width * self.grid.tile

    def rows(self, side: int) -> slice:
        """Rows (equally columns) of the matrix that lie in a side."""
        blocks = self.blocks(side)
        return slice(self.grid.rows(blocks[0]).start, self.grid.rows(blocks[-1]).stop)

    def blocks(self, side: int) -> range:
        """Blocks of the grid that lie in a side."""
        return range(side * self.width, min((side + 1) * self.width, self.grid.blocks))

    def tiles(self, first: int, second: int) -> Iterator[tuple[int, int]]:
        """The upper tiles of patch (first, second), row by row."""
        return ((i, j) for i in self.blocks(first) for j in self.blocks(second) if i <= j)

    def upper(self) -> list[tuple[int, int]]:
        """The upper patches, those with the most tiles first, so that the last tasks of a product are short."""
        pairs = [(first, second) for first in range(self.sides) for second in range(first, self.sides)]
        return sorted(pairs, key=lambda pair: (-sum(1 for _ in self.tiles(*pair)), pair))
