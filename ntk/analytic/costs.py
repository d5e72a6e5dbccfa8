"""What a pair of inputs costs, from the architecture alone: no tracing, no JAX."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from math import inf, prod
from typing import Any, cast

from ntk.analytic import footprint
from ntk.analytic.admission import check_output, check_rows_alone, check_weights
from ntk.analytic.requirements import needs_full
from ntk.analytic.results import asked
from ntk.analytic.staging import staged
from ntk.stax.attention import GlobalSelfAttention
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.elementwise import ElementwiseNumerical, Nonlinearity
from ntk.stax.graph import Aggregate
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.rearranging import DotGeneral, ImageResize
from ntk.stax.signal import Signal, Signals, entry, trace
from ntk.stax.spatial import AvgPool, Conv, ConvLocal, ConvTranspose, SumPool

#: Rows of the smallest tile for which the bytes per pair of inputs with positions hold.
SMALLEST_TILE = 64
#: Bytes of the temporaries of one block of pairs of inputs with positions.
BLOCK_BYTES = 2**25


@dataclass(frozen=True, slots=True)
class Cost:
    """Work and memory per pair of inputs, NNGP and NTK together.

    flops_per_pair: floating-point operations. bytes_per_pair: peak of the temporaries that live at once, in float64,
    the returned kernels not counted; half of it in float32. Inputs with positions are computed in blocks of pairs whose
    memory does not grow with the tile (`blocked`): their figure is that of tiles of `SMALLEST_TILE` rows.
    """

    flops_per_pair: float
    bytes_per_pair: float
    blocked: bool = False

    @property
    def most_bytes(self) -> float:
        """Peak of the temporaries however many pairs are asked for: inputs with positions go in blocks."""
        return max(self.bytes_per_pair * SMALLEST_TILE**2, BLOCK_BYTES) if self.blocked else inf


#: Operations of one nonlinearity on one covariance: two fused passes with a square root and a polynomial each.
_NONLINEARITY = 90.0
#: Scaling, bias, and adding the layer's own part to the tangent kernel.
_AFFINE = 6.0
#: nngp, ntk and doubt before and after a layer, and the angle between.
_LIVE_ARRAYS = 7


def cost(architecture: Layer, input_shape: tuple[int, ...], *, get: Any = None) -> Cost:
    """The cost of a pair of inputs of shape `input_shape` = (\\*spatial, channels).

    get: the kernels wanted, both for None; it decides what is refused, not the cost. Raises ArchitectureError for every
    architecture and shape that `ntk.analytic.TileKernel` refuses.
    """
    signal = entry(tuple(input_shape))
    power = 2 if needs_full(architecture) else 1
    elements = prod(signal.spatial) ** power
    after, work, widest = _walk(architecture, signal, "architecture", power)
    check_output(architecture, after)
    check_rows_alone(architecture)
    check_weights(architecture, asked(get))
    stages = staged(architecture, signal.shape)
    live = (
        8.0 * _LIVE_ARRAYS * max(elements, widest)
        if stages is None
        else footprint.tile_bytes(stages, SMALLEST_TILE) / SMALLEST_TILE**2
    )
    return Cost(2.0 * elements * signal.channels + work, live, bool(signal.spatial))


def _walk(layer: Layer, signal: Signals, at: str, power: int) -> tuple[Signals, float, int]:
    """The signal after `layer`, its operations per pair, and its widest covariance in elements per pair.

    `power`: 2 where covariances of all pairs of positions are kept, else 1.
    """
    if isinstance(layer, Serial):
        work, widest = 0.0, 1
        for i, inner in enumerate(layer.layers):
            signal, more, wide = _walk(inner, signal, f"{at}[{i}]", power)
            work, widest = work + more, max(widest, wide)
        return signal, work, widest
    if isinstance(layer, Parallel):
        after = trace(layer, signal, at)
        inner: Any = zip(layer.layers, cast(tuple[Signal, ...], signal), strict=True)
        parts = [_walk(branch, s, f"{at}.parallel[{i}]", power) for i, (branch, s) in enumerate(inner)]
        return after, sum(part[1] for part in parts), sum(part[2] for part in parts)
    after = trace(layer, signal, at)
    elements = sum(prod(s.spatial) ** power for s in (after if isinstance(after, tuple) else (after,)))
    before = signal if isinstance(signal, Signal) else signal[0]
    return after, elements * (work_per_element(layer) + mixing_per_element(layer, before)), elements


@singledispatch
def work_per_element(layer: Any) -> float:
    """Operations per element of the covariance after `layer`."""
    return _AFFINE


work_per_element.register(Dense, lambda layer: _AFFINE)
for _kind in (Conv, ConvLocal, ConvTranspose):
    work_per_element.register(_kind, lambda layer: _AFFINE + 2.0 * sum(layer.filter_shape))
for _kind in (AvgPool, SumPool):
    work_per_element.register(_kind, lambda layer: 4.0 * sum(layer.window_shape))
work_per_element.register(Nonlinearity, lambda layer: _NONLINEARITY)
work_per_element.register(ElementwiseNumerical, lambda layer: _NONLINEARITY * layer.deg**2)


@singledispatch
def mixing_per_element(layer: Any, before: Signal) -> float:
    """Operations per element that grow with the number of positions which the layer mixes, NNGP and NTK together."""
    return 0.0


@mixing_per_element.register(GlobalSelfAttention)
@mixing_per_element.register(Aggregate)
def _(layer: Any, before: Signal) -> float:
    return 8.0 * prod(before.spatial)


@mixing_per_element.register(ImageResize)
def _(layer: ImageResize, before: Signal) -> float:
    return 8.0 * sum(before.spatial)


@mixing_per_element.register(DotGeneral)
def _(layer: DotGeneral, before: Signal) -> float:
    return 8.0 * prod(before.shape[axis - 1] for axis in layer.contracted)
