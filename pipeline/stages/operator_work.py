"""What a worker does for `GramOperator`: one patch of a product, or one side's part of rows or of the diagonal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ntk.linalg.operator import HostProduct
from pipeline.plan.products import Patches
from pipeline.plan.tasks import Record, Task
from pipeline.stages.kept import KeptTiles
from pipeline.stages.tiles import Tiles
from pipeline.stages.worker import Stopwatch, device_room, has_gpu, opened, stored_record

if TYPE_CHECKING:
    from ntk.linalg.tile_jax import DeviceProduct

PRODUCT, ROWS, ROWS_PRODUCT, DIAGONAL = "product", "rows", "rows-product", "diagonal"


@dataclass(frozen=True, slots=True)
class OperatorWork:
    """One patch of a product, or one side's part of rows or of the diagonal; picklable.

    Arrays, one chunk a side of the patches: vectors (k, n); products (sides, k, n), of which [J, :, I] is K_IJ V_J;
    rows (m, n); products of m rows (sides, m, m + k), of which [J] is K[rows, J] [E, V]_J, E their unit columns;
    diagonal (n,).
    """

    directory: str
    token: str
    tiles: Tiles
    patches: Patches
    itemsize: int
    kept: KeptTiles = field(default_factory=KeptTiles, compare=False)

    def __call__(self, task: Task) -> list[Record]:
        watch = Stopwatch()
        kinds = {
            PRODUCT: self.product,
            ROWS: self.rows,
            ROWS_PRODUCT: self.rows_product,
            DIAGONAL: self.diagonal,
        }
        before = self.kept.read
        blocks = kinds[task.kind](*task.args)
        note = {"tiles_read": self.kept.read - before} if task.kind == PRODUCT else {}
        store = opened(self.directory, self.token)
        return [
            stored_record(store, name, key, block, watch, task.key, note)
            for (name, key), block in zip(task.writes, blocks, strict=True)
        ]

    def product(
        self, first: int, second: int, vectors: tuple[Record, Record], count: int, keep: int
    ) -> list[np.ndarray]:
        """K_IJ V_J and, off the diagonal, K_IJᵀ V_I, from one reading of the tiles of patch (I, J).

        Args:
            first, second: I and J.
            vectors: V_I and V_J.
            count: of the products so far.
            keep: tiles that may stay in memory for the next; a GPU keeps what its own has room for.
        """
        store, grid, patches = opened(self.directory, self.token), self.tiles.grid, self.patches
        sides = (first,) if first == second else (first, second)
        # Where the rows of a side lie in the vectors of the patch.
        starts, height = {}, 0
        for side in sides:
            starts[side] = height - patches.rows(side).start
            height += patches.rows(side).stop - patches.rows(side).start
        x = np.concatenate([store.read_recorded(record) for record in vectors[: len(sides)]], axis=1)
        if has_gpu():
            keep = device_room() // (grid.tile**2 * self.itemsize)
        steps, hold = product_steps()
        product = steps(x)
        for (i, j), tile in self.kept.stream(self.tiles, patches.tiles(first, second), count, keep, hold):
            rows, columns = (
                slice(grid.rows(block).start + starts[side], grid.rows(block).stop + starts[side])
                for block, side in ((i, first), (j, second))
            )
            product.take(tile, rows, columns, diagonal=i == j)
        found, cut = product.product(), patches.rows(first).stop - patches.rows(first).start
        parts = [found] if first == second else [found[:, :cut], found[:, cut:]]
        return [np.ascontiguousarray(part)[None] for part in parts]

    def rows(self, side: int, indices: Record, inputs: Record | None) -> list[np.ndarray]:
        """K[indices, side]."""
        store = opened(self.directory, self.token)
        chosen = store.read_recorded(indices)
        x = None if inputs is None else store.read_recorded(inputs)
        found = [self.tiles.entries(chosen, x, block) for block in self.patches.blocks(side)]
        return [np.concatenate(found, axis=1).astype(np.float64, copy=False)]

    def rows_product(
        self, side: int, indices: Record, inputs: Record | None, vectors: Record
    ) -> list[np.ndarray]:
        """K[indices, side] times the side of the unit columns of these indices and of V."""
        store, grid, start = (
            opened(self.directory, self.token),
            self.tiles.grid,
            self.patches.rows(side).start,
        )
        chosen, v = store.read_recorded(indices), store.read_recorded(vectors)
        x = None if inputs is None else store.read_recorded(inputs)
        found = np.zeros((len(chosen), len(chosen) + len(v)))
        for block in self.patches.blocks(side):
            rows = grid.rows(block)
            entries = self.tiles.entries(chosen, x, block).astype(np.float64, copy=False)
            mine = np.flatnonzero((chosen >= rows.start) & (chosen < rows.stop))
            found[:, mine] = entries[:, chosen[mine] - rows.start]
            found[:, len(chosen) :] += entries @ v[:, rows.start - start : rows.stop - start].T
        return [found[None]]

    def diagonal(self, side: int) -> list[np.ndarray]:
        """The diagonal of K in a side."""
        found = [self.tiles.tile(block, block).diagonal() for block in self.patches.blocks(side)]
        return [np.concatenate(found).astype(np.float64)]


def product_steps() -> tuple[type[HostProduct] | type[DeviceProduct], Callable[[np.ndarray], object]]:
    """What this worker multiplies tiles with, and what brings them there."""
    if has_gpu():
        from ntk.device import on_device
        from ntk.linalg.tile_jax import DeviceProduct

        return DeviceProduct, on_device
    return HostProduct, lambda tile: tile
