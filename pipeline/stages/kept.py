"""Tiles that a worker keeps from one product with a matrix to the next.

A product goes through all tiles in turn, so that what was used longest ago comes next: what is kept stays, and what
does not fit is streamed. Only tiles that this worker has not used in a whole product, because another has taken them
over, make room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from pipeline.stages.tiles import Tile, Tiles


class KeptTiles:
    """The tiles of one matrix in one process, all of one size in memory, however the edge cuts them.

    Belongs to a `Work`, with which it goes; travels empty.

    Attributes:
        read: tiles that came from their source so far.
    """

    def __init__(self) -> None:
        self.read = 0
        self._tiles: dict[Tile, Any] = {}
        self._used: dict[Tile, int] = {}

    def __reduce__(self) -> tuple[type[KeptTiles], tuple[()]]:
        return (KeptTiles, ())

    def __len__(self) -> int:
        return len(self._tiles)

    def stream(
        self,
        source: Tiles,
        keys: Iterable[Tile],
        product: int,
        most: int,
        held: Callable[[np.ndarray], Any] = lambda tile: tile,
    ) -> Iterator[tuple[Tile, Any]]:
        """These tiles in this order, those that are not here from their source.

        Args:
            source: of the tiles; what it gives was checked.
            keys: in the order in which the tiles are wanted.
            product: counts the products with the matrix.
            most: tiles to keep.
            held: brings a tile to where it is used, and kept.
        """
        keys = list(keys)
        for key in sorted(self._used, key=self._used.__getitem__)[: max(0, len(self._tiles) - most)]:
            self._forget(key)
        here = {key for key in keys if key in self._tiles}
        self._used |= dict.fromkeys(here, product)
        stale = [key for key, used in self._used.items() if used < product - 1]
        with closing(source.stream([key for key in keys if key not in here])) as missing:
            for key in keys:
                if key in here:
                    yield key, self._tiles[key]
                    continue
                tile = held(next(missing)[1])
                self.read += 1
                if len(self._tiles) >= most and stale:
                    self._forget(stale.pop())
                if len(self._tiles) < most:
                    self._tiles[key], self._used[key] = tile, product
                yield key, tile

    def _forget(self, key: Tile) -> None:
        del self._tiles[key], self._used[key]
