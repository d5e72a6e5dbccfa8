"""Transposes of tiles in memory."""

from __future__ import annotations

import numpy as np

#: Rows of a block that are transposed at a time: whole lines of the cache are written, and these rows stay in it.
_STRIP = 64
#: Rows that are mirrored at a time.
_BAND = 64


def transpose_into(out: np.ndarray, block: np.ndarray) -> None:
    """out = blockᵀ, a few rows of the block at a time."""
    for i in range(0, len(block), _STRIP):
        out[:, i : i + _STRIP] = block[i : i + _STRIP].T


def mirror(square: np.ndarray) -> None:
    """Copy the part above the diagonal to below it."""
    for i in range(0, len(square), _BAND):
        here = square[i : i + _BAND, i : i + _BAND]
        here[...] = np.triu(here) + np.triu(here, 1).T
        transpose_into(square[i + _BAND :, i : i + _BAND], square[i : i + _BAND, i + _BAND :])
