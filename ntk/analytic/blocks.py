"""Kernel matrices of any size in memory, tile by tile, the upper triangle alone where they are symmetric."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ntk.analytic.admission import has_weights
from ntk.analytic.tile import TileKernel
from ntk.stax.layer import Layer

_LARGEST = 1024


def concrete_kernel(
    layer: Layer, x1: np.ndarray, x2: np.ndarray | None, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """The kernels of x1 with x2 (None: with itself), (n1, n2), in the precision of the inputs, by name."""
    other = x1 if x2 is None else x2
    if "ntk" in names and not has_weights(layer):
        return {**concrete_kernel(layer, x1, x2, ("nngp",)), "ntk": np.zeros((len(x1), len(other)), x1.dtype)}
    tile = _tile(max(len(x1), len(other)))
    kernel = TileKernel(layer, x1.shape[1:], get=names, precision=x1.dtype.name, tile=tile)  # type: ignore[arg-type]
    values = {name: np.empty((len(x1), len(other)), x1.dtype) for name in names}

    def fill(corner: tuple[int, int]) -> None:
        i, j = corner
        rows, columns = slice(i, i + tile), slice(j, j + tile)
        block = kernel(x1[rows], None if x2 is None and i == j else other[columns])
        for name in names:
            values[name][rows, columns] = block[name]
            if x2 is None and i < j:
                values[name][columns, rows] = block[name].T

    corners = [
        (i, j)
        for i in range(0, len(x1), tile)
        for j in range(0, len(other), tile)
        if x2 is not None or i <= j
    ]
    # A tile on a CPU keeps one core busy, so tiles go side by side.
    with ThreadPoolExecutor(min(len(corners), len(os.sched_getaffinity(0)) or 1) or 1) as pool:
        list(pool.map(fill, corners))
    return values


def _tile(rows: int) -> int:
    """A tile size from a short list, so that batches of many sizes share few compiled kernels."""
    tile = 16
    while tile < min(rows, _LARGEST):
        tile *= 4
    return min(tile, _LARGEST)
