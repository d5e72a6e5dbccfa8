"""The stored symmetric matrix as a lazy dask.array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph

from pipeline.plan.tiles import TileGrid


def lazy_matrix(grid: TileGrid, block: Callable[[int, int], np.ndarray], dtype: Any) -> da.Array:
    """The n × n symmetric matrix of which ``block(i, j)``, i ≤ j, reads the upper tiles; nothing is read here.

    Chunks are the tiles, edge tiles at their valid size. A tile below the diagonal is the transpose of its mirror
    image: it is read once even where both are used.

    Args:
        block: picklable if the array is computed by other processes; returns shape ``grid.shape(i, j)``.
        dtype: of the tiles.
    """
    token = tokenize(grid, block, np.dtype(dtype).str)
    name, upper = f"symmetric-{token}", f"tile-{token}"
    layer: dict[Any, Any] = {}
    for i, j in grid.upper():
        layer[(upper, i, j)] = (block, i, j)
        layer[(name, i, j)] = (upper, i, j)
        if i != j:
            layer[(name, j, i)] = (np.transpose, (upper, i, j))
    sizes = tuple(grid.size(block_index) for block_index in range(grid.blocks))
    graph = HighLevelGraph.from_collections(name, layer)
    array: Any = da.Array  # its constructor is a __new__ that type checkers do not see
    return array(graph, name, (sizes, sizes), dtype=dtype)
