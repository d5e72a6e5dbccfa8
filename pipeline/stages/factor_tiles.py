"""Where a process has the tiles of a factor that it works on: in the pages of their files, or in the memory of a GPU.

On a GPU a tile stays from when it was computed there, or first read, for as long as there is room: a tile is an operand
of as many others as there are blocks, and the way to a GPU is longer than the product.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ntk.linalg import substitution, tile_cholesky
from pipeline.plan.tasks import Chunk, Record
from pipeline.stages.worker import device_room, has_gpu
from pipeline.store.arrays import ArrayStore

if TYPE_CHECKING:
    import jax

    from ntk.linalg.tile_jax import DeviceSteps

    Tile = np.ndarray[Any, Any] | jax.Array


class FactorTiles:
    """The tiles of factors in one process, and what computes with them: JAX where it has a GPU to itself, else LAPACK.

    Belongs to a `Work`, with which it goes; travels empty.
    """

    def __init__(self) -> None:
        self._held: dict[Chunk, tuple[str, jax.Array]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[FactorTiles], tuple[()]]:
        return (FactorTiles, ())

    def __len__(self) -> int:
        return len(self._held)

    def start(self, a: np.ndarray, dtype: str, shift: float) -> tile_cholesky.HostSteps | DeviceSteps:
        """A tile of the factor in the making, from one of K; `shift` for its diagonal."""
        if has_gpu():
            # Imported here alone: a worker without a GPU keeps its memory for tiles.
            from ntk.linalg.tile_jax import DeviceSteps

            return DeviceSteps(a, shift, dtype)
        return tile_cholesky.HostSteps(a, shift, dtype)

    def inverse_diagonal_block(
        self, factor_tile: Callable[[int, int], Any], blocks: list[slice], j: int
    ) -> np.ndarray:
        """As `ntk.linalg.substitution.inverse_diagonal_block`."""
        if has_gpu():
            from ntk.linalg import tile_jax

            return tile_jax.inverse_diagonal_block(factor_tile, blocks, j)
        return substitution.inverse_diagonal_block(factor_tile, blocks, j)

    def expect(self, store: ArrayStore, array: str, key: tuple[int, int]) -> None:
        """A tile is wanted soon."""
        if (array, key) not in self._held:
            store.expect(array, key)

    def operand(self, store: ArrayStore, array: str, key: tuple[int, int]) -> Tile:
        """A finished tile, held against its record.

        Raises:
            TileError: it is not as recorded.
        """
        if not has_gpu():
            return store.view(array, key)
        from ntk.device import on_device

        held = self._held.get((array, key))
        if held is not None:
            if store.journal.latest(array, key) is None:
                store.journal.refresh()
            record = store.journal.latest(array, key)
            if record is not None and record.digest == held[0]:
                return held[1]
        tile = on_device(store.view(array, key))
        record = store.journal.latest(array, key)
        if record is not None:
            self._keep(record, tile)
        return tile

    def stored(self, tile: Tile, store: Callable[[np.ndarray], Record]) -> Record:
        """The record that `store` makes of a tile that was computed here, which stays if it is on a GPU."""
        if isinstance(tile, np.ndarray):
            return store(tile)
        from ntk.device import to_host

        record = store(to_host(tile))
        self._keep(record, tile)
        return record

    def _keep(self, record: Record, tile: jax.Array) -> None:
        """If there is room, for which tiles of other factors go."""
        with self._lock:
            self._held.pop((record.array, record.key), None)
            room = device_room() - sum(held.nbytes for _, held in self._held.values())
            for chunk in [chunk for chunk in self._held if chunk[0] != record.array]:
                if room >= tile.nbytes:
                    break
                room += self._held.pop(chunk)[1].nbytes
            if room >= tile.nbytes:
                self._held[record.array, record.key] = record.digest, tile
