"""Where the tiles of a Gram matrix come from: read from the store, or computed from the inputs when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.plan.gram import gram_array
from pipeline.plan.tiles import TileGrid
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.worker import input_rows, opened

AHEAD = 2
"""Tiles that are read and checked while another is multiplied."""

Tile = tuple[int, int]

Stream = Generator[tuple[Tile, np.ndarray], None, None]


class Tiles(Protocol):
    """A source of upper tiles; picklable, so that workers have it too."""

    @property
    def grid(self) -> TileGrid: ...

    def tile(self, i: int, j: int) -> np.ndarray:
        """Tile (i, j), i ≤ j, of its valid shape, float64 or float32; not to be changed."""
        ...

    def stream(self, keys: Iterable[Tile]) -> Stream:
        """These tiles in this order."""
        ...

    def entries(self, rows: np.ndarray, x: np.ndarray | None, block: int) -> np.ndarray:
        """K[rows, block], shape (len(rows), size of the block); `x` are the inputs of these rows, which
        stored tiles do not need."""
        ...


@dataclass(frozen=True, slots=True)
class StoredTiles:
    """The tiles of a stored Gram matrix, every one checked against its record."""

    directory: str
    token: str
    kernel: str
    grid: TileGrid

    def tile(self, i: int, j: int) -> np.ndarray:
        return opened(self.directory, self.token).view(gram_array(self.kernel), (i, j))

    def stream(self, keys: Iterable[Tile]) -> Stream:
        return ahead(self.tile, keys)

    def entries(self, rows: np.ndarray, x: np.ndarray | None, block: int) -> np.ndarray:
        del x
        found = np.empty((len(rows), self.grid.size(block)))
        owners = rows // self.grid.tile
        for owner in np.unique(owners):
            mine = owners == owner
            within = rows[mine] - owner * self.grid.tile
            i = int(owner)
            found[mine] = self.tile(i, block)[within] if i <= block else self.tile(block, i)[:, within].T
        return found


@dataclass(frozen=True, slots=True)
class ComputedTiles:
    """The tiles of a Gram matrix that is stored nowhere, from the stored inputs."""

    directory: str
    token: str
    kernel: str
    grid: TileGrid
    spec: KernelSpec

    def tile(self, i: int, j: int) -> np.ndarray:
        kernel = self.spec.build(self.grid.tile)
        return kernel(self.inputs(i), None if i == j else self.inputs(j))[self.kernel]

    def stream(self, keys: Iterable[Tile]) -> Stream:
        return ((key, self.tile(*key)) for key in keys)

    def entries(self, rows: np.ndarray, x: np.ndarray | None, block: int) -> np.ndarray:
        if x is None:
            raise ValueError("rows are computed from their inputs, which were not given")
        # A kernel of the size of the request: of a whole tile's most would be padding.
        size = min(self.grid.tile, -(-len(rows) // ROWS_MULTIPLE) * ROWS_MULTIPLE)
        kernel, columns = self.spec.build(size), self.inputs(block)
        parts = [
            np.concatenate(
                [kernel(x[r : r + size], columns[c : c + size])[self.kernel] for r in range(0, len(x), size)]
            )
            for c in range(0, len(columns), size)
        ]
        return np.concatenate(parts, axis=1)

    def inputs(self, block: int) -> np.ndarray:
        """One block of the training inputs."""
        return input_rows(self.directory, self.token, "x_train", block, len(self.spec.input_shape))


ROWS_MULTIPLE = 64
"""Requests for rows are rounded up to this, so that few kernels are compiled."""


def ahead(read: Callable[[int, int], np.ndarray], keys: Iterable[Tile]) -> Stream:
    """`read` of each key in order, the next `AHEAD` of them by a thread meanwhile."""
    keys = list(keys)
    if not keys:
        return
    waiting: deque[tuple[Tile, Future[np.ndarray]]] = deque()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        try:
            for key in keys:
                waiting.append((key, pool.submit(read, *key)))
                if len(waiting) > AHEAD:
                    found, future = waiting.popleft()
                    yield found, future.result()
            while waiting:
                found, future = waiting.popleft()
                yield found, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
