"""The type check of attention, graphs, and fixed linear maps of positions."""

from __future__ import annotations

from dataclasses import replace

from ntk.errors import ArchitectureError
from ntk.stax.attention import GlobalSelfAttention
from ntk.stax.graph import Aggregate
from ntk.stax.rearranging import DotGeneral, ImageResize, Index, sizes
from ntk.stax.signal import Signal, Signals, name, one, trace
from ntk.stax.spatial_signal import positions


@trace.register
def _(layer: GlobalSelfAttention, signal: Signals, at: str = "architecture") -> Signal:
    signal = positions(layer, signal, at)
    if layer.pos_emb_type == "SUM" and layer.n_chan_pos_emb not in (None, signal.channels):
        raise ArchitectureError(
            f"{name(layer, at)} adds positional embeddings of {layer.n_chan_pos_emb} channels to an input of "
            f"{signal.channels}. hint: n_chan_pos_emb null, or pos_emb_type CONCAT"
        )
    clash = (
        ""
        if layer.linear_scaling or layer.attention_mechanism == "IDENTITY"
        else (
            f"{name(layer, at)} has no closed form without linear_scaling for attention_mechanism "
            f"{layer.attention_mechanism}. hint: linear_scaling, or IDENTITY"
        )
    )
    return signal.weighted((*signal.spatial, layer.n_chan_out), clash)


@trace.register
def _(layer: Aggregate, signal: Signals, at: str = "architecture") -> Signals:
    signal = positions(layer, signal, at)
    rank = len(signal.spatial)
    if layer.axes(rank) is None:
        raise ArchitectureError(
            f"{name(layer, at)}: aggregate_axis must name axes from 1 to {rank}, each once, got {layer.aggregate_axis}"
        )
    return signal


@trace.register
def _(layer: ImageResize, signal: Signals, at: str = "architecture") -> Signals:
    signal = positions(layer, signal, at)
    rank = len(signal.spatial)
    if len(layer.shape) != rank + 2:
        raise ArchitectureError(
            f"{name(layer, at)}: shape must have {rank + 2} sizes, batch and channels included, got {layer.shape}"
        )
    if layer.shape[0] != -1 or layer.shape[-1] not in (-1, signal.channels):
        raise ArchitectureError(
            f"{name(layer, at)}: shape must be -1 for the batch and the channels, got {layer.shape}"
        )
    return replace(signal, shape=(*resized(layer, signal.spatial), signal.channels))


def resized(layer: ImageResize, spatial: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial sizes after `layer`."""
    return tuple(n if m == -1 else m for n, m in zip(spatial, layer.shape[1:-1], strict=True))


@trace.register
def _(layer: Index, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    items = layer.items(len(signal.shape) + 1)
    if items is None:
        raise ArchitectureError(
            f"{name(layer, at)} names more axes than the {len(signal.shape) + 1} of its input, batch, positions "
            f"{signal.spatial} and channels"
        )
    if items[0] != slice(None) or items[-1] != slice(None):
        raise ArchitectureError(
            f"{name(layer, at)} must leave the batch and the channels whole (:). hint: index the inputs instead, "
            "or Dense(channels) for fewer channels"
        )
    shape = []
    for size, item in zip(signal.spatial, items[1:-1], strict=True):
        if isinstance(item, slice):
            left = len(range(size)[item])
            if not left:
                raise ArchitectureError(f"{name(layer, at)} leaves no positions of {signal.spatial}")
            shape.append(left)
        elif not -size <= item < size:
            raise ArchitectureError(f"{name(layer, at)}: {item} is outside the positions {signal.spatial}")
    return replace(signal, shape=(*shape, signal.channels))


@trace.register
def _(layer: DotGeneral, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    if layer.constant is None:
        return signal
    ndim = len(signal.shape) + 1
    input_sizes = (0, *signal.shape)
    constant_sizes = sizes(layer.constant)
    _check_dimensions(layer, at, ndim, input_sizes, constant_sizes)
    kept = [
        input_sizes[axis] if kind == "input" else constant_sizes[axis]
        for kind, axis in layer.axes(ndim)
        if kind == "constant" or axis not in (0, ndim - 1)
    ]
    return replace(signal, shape=(*kept, signal.channels))


def _check_dimensions(
    layer: DotGeneral, at: str, ndim: int, input_sizes: tuple[int, ...], constant_sizes: tuple[int, ...]
) -> None:
    mine = int(layer.is_lhs)
    for pairs in layer.dimension_numbers:
        of_input, of_constant = pairs[mine], pairs[1 - mine]
        if any(not 0 < axis < ndim - 1 for axis in of_input):
            raise ArchitectureError(
                f"{name(layer, at)}: dimension_numbers must name spatial axes of the input, from 1 to {ndim - 2}, "
                f"got {of_input}"
            )
        if any(not 0 <= axis < len(constant_sizes) for axis in of_constant):
            raise ArchitectureError(
                f"{name(layer, at)}: dimension_numbers must name axes of the constant of shape {constant_sizes}, "
                f"got {of_constant}"
            )
        if [input_sizes[a] for a in of_input] != [constant_sizes[a] for a in of_constant]:
            raise ArchitectureError(
                f"{name(layer, at)}: axes {of_input} of the input, positions {input_sizes[1:-1]}, and {of_constant} "
                f"of the constant, of shape {constant_sizes}, must have equal sizes"
            )
    for side in (0, 1):
        named = [axis for pairs in layer.dimension_numbers for axis in pairs[side]]
        if len(set(named)) < len(named):
            raise ArchitectureError(f"{name(layer, at)}: dimension_numbers name an axis twice")
