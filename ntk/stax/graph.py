"""Layers on graphs whose vertices are positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar
from typing import Any, Literal

from ntk.errors import ArchitectureError
from ntk.stax.layer import Layer


class Aggregate(Layer):
    """Every vertex becomes the weighted sum of its direct predecessors (Du et al. 2019, "Graph neural tangent kernel").

    The graph of each input is given beside the inputs: ``apply_fn(params, x, pattern=p)``,
    ``kernel_fn(x1, x2, get, pattern=(p1, p2))``; without a pattern the layer is the identity. Its vertices are the
    positions along `aggregate_axis` (axes of the batch array, None for all spatial ones) of sizes X₁, …, X_K.

    implementation DENSE: a pattern has shape (batch, X₁, …, X_K, X₁, …, X_K), the weight of the edge from the first
    vertex to the second; or any other shape that `to_dense` brings to this one, first axis the batch. SPARSE: integers
    (batch, edges, K, 2), or (batch, edges, 2) where K = 1, tails and heads of edges of weight 1; repeated edges add up,
    edges with a negative entry are left out. Other vertices that do not exist are refused, or left out where the
    pattern is traced.
    """

    aggregate_axis: int | tuple[int, ...] | None = None
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1
    to_dense: Callable[..., Any] | None = None
    implementation: Literal["DENSE", "SPARSE"] = "DENSE"

    def axes(self, rank: int) -> tuple[int, ...] | None:
        """The spatial axes, counted from 0 and ascending, that are aggregated over of `rank`; None if there are not
        such axes."""
        if self.aggregate_axis is None:
            return tuple(range(rank))
        given = (self.aggregate_axis,) if isinstance(self.aggregate_axis, int) else self.aggregate_axis
        inside = all(-rank - 2 <= axis < rank + 2 for axis in given)
        found = tuple(sorted(axis % (rank + 2) - 1 for axis in given))
        distinct = len(set(found)) == len(found) > 0
        return found if inside and distinct and found[0] >= 0 and found[-1] < rank else None


def check_pattern(
    layer: Aggregate, shape: tuple[int, ...], integer: bool, rows: int, sizes: tuple[int, ...]
) -> None:
    """Raise ArchitectureError unless a pattern of `shape` (after `to_dense`) and kind fits `rows` inputs with vertices
    of `sizes`."""
    if shape and shape[0] != rows:
        raise ArchitectureError(
            f"Aggregate: the pattern must have one graph for each of {rows} inputs, got {shape[0]}"
        )
    wanted: tuple[tuple[Any, ...], ...] = (("batch", *sizes, *sizes),)
    if layer.implementation == "SPARSE":
        wanted = (("batch", "edges", len(sizes), 2), *([("batch", "edges", 2)] if len(sizes) == 1 else []))
        if not integer:
            raise ArchitectureError("Aggregate: a SPARSE pattern must be an array of integers")
    fits = any(
        len(form) == len(shape) and all(w in ("edges", n) for w, n in zip(form[1:], shape[1:], strict=True))
        for form in wanted
    )
    if not fits:
        text = " or ".join("(" + ", ".join(map(str, form)) + ")" for form in wanted)
        raise ArchitectureError(f"Aggregate: the pattern must have shape {text}, got {tuple(shape)}")
