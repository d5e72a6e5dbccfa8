"""Aggregation over graphs at finite width."""

from __future__ import annotations

from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.arrays import real
from ntk.errors import ArchitectureError
from ntk.finite.network import apply
from ntk.stax.graph import Aggregate, check_pattern
from ntk.tracing import traced


def edges(layer: Aggregate, pattern: Any, rows: int, sizes: tuple[int, ...]) -> tuple[Array, Array]:
    """The tails and heads of a SPARSE pattern as numbers of vertices, (rows, edges) each; those of edges that are left
    out are V, the number of vertices. Raises ArchitectureError for a pattern of another shape, and for an edge to a
    vertex that does not exist in one that is known."""
    known = None if traced(pattern) else np.asarray(pattern)
    pattern = pattern if isinstance(pattern, Array) else jnp.asarray(pattern)
    check_pattern(layer, pattern.shape, jnp.issubdtype(pattern.dtype, jnp.integer), rows, sizes)
    places = pattern.reshape(*pattern.shape[:2], len(sizes), 2)
    if known is not None:
        _check_vertices(known.reshape(places.shape), sizes)
    strides = np.cumprod([1, *sizes[:0:-1]])[::-1].astype(places.dtype)[:, None]
    numbers = jnp.sum(places * strides, axis=-2)
    # Vertices that do not exist are left out as well: of a traced pattern they cannot be refused.
    limits = np.asarray(sizes, places.dtype)[:, None]
    real = jnp.all((places >= 0) & (places < limits), axis=(-2, -1))[..., None]
    numbers = jnp.where(real, numbers, prod(sizes))
    return numbers[..., 0], numbers[..., 1]


def _check_vertices(places: np.ndarray, sizes: tuple[int, ...]) -> None:
    limits = np.asarray(sizes)[:, None]
    outside = np.any(places >= limits, axis=(-2, -1)) & np.all(places >= 0, axis=(-2, -1))
    if outside.any():
        row, edge = (int(i) for i in np.argwhere(outside)[0])
        tail, head = places[row, edge, :, 0].tolist(), places[row, edge, :, 1].tolist()
        raise ArchitectureError(
            f"Aggregate: the vertices of a SPARSE pattern must be below {sizes}, got the edge from {tail} to {head} of "
            f"input {row}. hint: edges with a negative entry are left out"
        )


def adjacency(layer: Aggregate, pattern: Any, rows: int, sizes: tuple[int, ...], dtype: Any) -> Array:
    """The weights of edges from vertex to vertex, (rows, V, V), of a pattern of either form.

    Raises ArchitectureError for a pattern of another shape.
    """
    count = prod(sizes)
    if layer.implementation == "SPARSE":
        tails, heads = edges(layer, pattern, rows, sizes)
        row = jnp.arange(rows)[:, None]
        return jnp.zeros((rows, count, count), dtype).at[row, tails, heads].add(1, mode="drop")
    dense = pattern if layer.to_dense is None else layer.to_dense(pattern)
    dense = jnp.asarray(real(dense, "Aggregate: the pattern", ArchitectureError))
    check_pattern(layer, dense.shape, False, rows, sizes)
    return dense.astype(dtype).reshape(rows, count, count)


@apply.register
def _(layer: Aggregate, params: Any, x: Array, *, pattern: Any = None, **kwargs: Any) -> Array:
    if pattern is None:
        return x
    axes = layer.axes(x.ndim - 2)
    if axes is None:
        raise ArchitectureError(
            f"Aggregate: aggregate_axis {layer.aggregate_axis} is not in inputs of {x.shape}"
        )
    places = tuple(axis + 1 for axis in axes)
    front = tuple(range(1, len(axes) + 1))
    moved = jnp.moveaxis(x, places, front)
    sizes = moved.shape[1 : len(axes) + 1]
    rows = moved.reshape(x.shape[0], prod(sizes), -1)
    if layer.implementation == "SPARSE":
        tails, heads = edges(layer, pattern, x.shape[0], sizes)
        row = jnp.arange(x.shape[0])[:, None]
        messages = rows.at[row, tails].get(mode="fill", fill_value=0)
        summed = jnp.zeros_like(rows).at[row, heads].add(messages, mode="drop")
    else:
        weights = adjacency(layer, pattern, x.shape[0], sizes, x.dtype)
        summed = jnp.einsum("nij,nic->njc", weights, rows, precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(summed.reshape(moved.shape), front, places)
