"""Inputs whose squares leave the range of float32."""

from __future__ import annotations

import numpy as np

from ntk.analytic.dual.angle import tiny


def blanked(x: np.ndarray) -> np.ndarray:
    """x (n, \\*spatial, channels), of float32 with NaN in every row that has a vector, not zero, whose mean square that
    type cannot hold: a tile has holes there, which float64 fills."""
    if x.dtype != np.float32 or not x.size:
        return x
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        squares = np.einsum("...c,...c->...", x, x) / np.float32(x.shape[-1])
    least = np.float32(tiny(x.dtype))
    strange = ~((squares >= least) & (squares <= 1 / least))
    if not strange.any():
        return x
    places = np.nonzero(strange)
    rows = places[0][(x[places] != 0).any(axis=-1)]
    if len(rows):
        x = x.copy()
        x[rows] = np.nan
    return x
