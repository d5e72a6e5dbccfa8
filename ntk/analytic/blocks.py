"""Kernel matrices of any size in memory, tile by tile, the upper triangle alone where they are symmetric."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ntk.analytic.admission import has_weights
from ntk.analytic.spatial import device
from ntk.analytic.strips import aligned, one_blas_thread
from ntk.analytic.tile import Rows, TileKernel
from ntk.errors import ArchitectureError
from ntk.stax.layer import Layer

_LARGEST = 1024
#: Pairs of inputs with positions are dear: small tiles, so that every core has some; an accelerator fills itself.
_LARGEST_OF_POSITIONS = {"cpu": 32, "accelerator": 512}


def concrete_kernel(
    layer: Layer,
    x1: np.ndarray,
    x2: np.ndarray | None,
    names: tuple[str, ...],
    graphs: tuple[Any, Any] | None = None,
) -> dict[str, np.ndarray]:
    """The kernels of x1 with x2 (None: with itself), (n1, n2), in the precision of the inputs, by name.

    graphs: the patterns of Aggregate for x1 and x2, one graph for each row.
    """
    other = x1 if x2 is None else x2
    if "ntk" in names and not has_weights(layer):
        nngp = concrete_kernel(layer, x1, x2, ("nngp",), graphs)
        return {**nngp, "ntk": np.zeros((len(x1), len(other)), x1.dtype)}
    tile = _tile(max(len(x1), len(other)), _LARGEST if x1.ndim == 2 else _LARGEST_OF_POSITIONS[device()])
    kernel = TileKernel(layer, x1.shape[1:], get=names, precision=x1.dtype.name, tile=tile)  # type: ignore[arg-type]
    values = {name: aligned((len(x1), len(other)), x1.dtype) for name in names}

    first, second = (None, None) if graphs is None else map(np.asarray, graphs)

    def loaded(x: np.ndarray, pattern: np.ndarray | None) -> list[Rows]:
        if pattern is not None and len(pattern) != len(x):
            raise ArchitectureError(
                f"pattern must have one graph for each of {len(x)} inputs, got {len(pattern)}"
            )
        parts = [slice(i, i + tile) for i in range(0, len(x), tile)]
        return [kernel.load(x[part], None if pattern is None else pattern[part]) for part in parts]

    left = loaded(x1, first)
    right = left if x2 is None else loaded(x2, second)

    def fill(corner: tuple[int, int]) -> None:
        i, j = corner
        rows, columns = slice(i * tile, (i + 1) * tile), slice(j * tile, (j + 1) * tile)
        here = {name: value[rows, columns] for name, value in values.items()}
        if x2 is None and i == j:
            kernel.into(here, left[i])
        else:
            below = {name: value[columns, rows] for name, value in values.items()} if x2 is None else None
            kernel.into(here, left[i], right[j], below=below)

    corners = [(i, j) for i in range(len(left)) for j in range(len(right)) if x2 is not None or i <= j]
    if len(corners) <= 1:
        for corner in corners:
            fill(corner)
        return values
    # One more than there are cores: while one of them copies a tile to its place, the others compute.
    # Tiles of inputs with positions take much of an accelerator's memory.
    most = len(os.sched_getaffinity(0)) + 1 if device() == "cpu" or x1.ndim == 2 else 2
    threads = min(len(corners), most)
    with one_blas_thread(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, corners))
    return values


def _tile(rows: int, largest: int) -> int:
    """A tile size from a short list, so that batches of many sizes share few compiled kernels."""
    tile = 16
    while tile < min(rows, largest):
        tile *= 4
    return min(tile, largest)
