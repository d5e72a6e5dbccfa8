"""Which covariances an architecture needs: of equal positions only, or of all pairs of positions."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from ntk.stax.attention import GlobalSelfAttention
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.graph import Aggregate
from ntk.stax.layer import Layer
from ntk.stax.rearranging import DotGeneral, ImageResize
from ntk.stax.spatial import AvgPool, Flatten, GlobalAvgPool, GlobalSumPool, SumPool


def needs_full(layer: Layer) -> bool:
    """Whether the kernel after `layer` needs covariances between different positions of its input.

    An output with positions left is read at equal positions.
    """
    return demand(layer, False)


@singledispatch
def demand(layer: Any, wanted: bool) -> bool:
    """Whether `layer` needs the full covariance of its input for one of its output (`wanted`: the full one)."""
    return wanted


@demand.register
def _(layer: Serial, wanted: bool) -> bool:
    for inner in reversed(layer.layers):
        wanted = demand(inner, wanted)
    return wanted


@demand.register
def _(layer: Parallel, wanted: bool) -> bool:
    return any(demand(branch, wanted) for branch in layer.layers)


for _kind in (AvgPool, SumPool, GlobalAvgPool, GlobalSumPool, GlobalSelfAttention, Aggregate):
    demand.register(_kind, lambda layer, wanted: True)
demand.register(Flatten, lambda layer, wanted: False)
# The nearest position is a choice of one; so is a product that sums over no positions.
demand.register(ImageResize, lambda layer, wanted: wanted or layer.method != "nearest")
demand.register(DotGeneral, lambda layer, wanted: wanted or bool(layer.contracted))
