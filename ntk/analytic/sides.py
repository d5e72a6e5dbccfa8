"""What is known of the rows of one side of a tile, on the host and on the device."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntk.analytic.range import blanked

Side = tuple[np.ndarray, ...]
DeviceSide = tuple[jax.Array, ...]
"""What is known of some rows: (inputs,), or (inputs, graphs) for an architecture with Aggregate; rows first. On the
device they are padded to the tile."""


def both(
    side1: DeviceSide, side2: DeviceSide
) -> tuple[jax.Array, jax.Array, tuple[jax.Array, jax.Array] | None]:
    """The inputs of two sides and their graphs, if there are any."""
    (x1, *graph1), (x2, *graph2) = side1, side2
    return x1, x2, (graph1[0], graph2[0]) if graph1 else None


def padded(side: Side, rows: int, dtype: Any) -> DeviceSide:
    """`pad` of inputs in `dtype` and of graphs, those of integers as they are."""
    x, *graphs = side
    return (
        pad(blanked(x.astype(dtype, copy=False)), rows, dtype),
        *(pad(g, rows, dtype if g.dtype.kind == "f" else g.dtype) for g in graphs),
    )


def pad(x: np.ndarray, rows: int, dtype: Any) -> jax.Array:
    """x with rows of zeros below, on the device. Call it where 64-bit types are enabled."""
    if len(x) == rows:
        return jnp.asarray(x, dtype)
    whole = np.zeros((rows, *x.shape[1:]), dtype)
    whole[: len(x)] = x
    return jnp.asarray(whole)
