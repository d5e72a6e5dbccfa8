"""The type check of layers on positions."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from ntk.errors import ArchitectureError
from ntk.stax.geometry import axes, transposed_axes
from ntk.stax.layer import Layer
from ntk.stax.signal import Signal, Signals, name, one, trace
from ntk.stax.spatial import (
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalSumPool,
    MaxPool,
    SumPool,
)


def positions(layer: Layer, signal: Signals, at: str, window: tuple[int, ...] | None = None) -> Signal:
    """`signal` where `layer` needs as many spatial axes as its window has sizes. Raises ArchitectureError."""
    signal = one(layer, signal, at)
    rank = len(signal.spatial)
    if rank == 0:
        raise ArchitectureError(
            f"{name(layer, at)} needs spatial axes and got a vector of {signal.channels} channels. "
            "hint: nothing spatial can follow Flatten or a global pooling"
        )
    if window is not None and len(window) != rank:
        raise ArchitectureError(
            f"{name(layer, at)} has a window of {len(window)} sizes, {window}, and got "
            f"{rank} spatial axes, {signal.spatial}"
        )
    return signal


def _out(layer: Layer, at: str, signal: Signal, sizes: tuple[int, ...]) -> tuple[int, ...]:
    if min(sizes) < 1:
        raise ArchitectureError(
            f"{name(layer, at)}: its window does not fit into the positions {signal.spatial}. "
            "hint: padding SAME"
        )
    return sizes


@trace.register(Conv)
@trace.register(ConvLocal)
@trace.register(ConvTranspose)
def _(layer: Any, signal: Signals, at: str = "architecture") -> Signals:
    signal = positions(layer, signal, at, layer.filter_shape)
    if signal.channels % layer.s[0] and layer.parameterization == "standard":
        raise ArchitectureError(
            f"{name(layer, at)}: its input has {signal.channels} channels, not a multiple of "
            f"s[0] = {layer.s[0]}"
        )
    if isinstance(layer, ConvTranspose):
        if layer.padding == "CIRCULAR":
            raise ArchitectureError(f"{name(layer, at)}: padding must be VALID or SAME, got CIRCULAR")
        strides = layer.strides or (1,) * len(layer.filter_shape)
        geometry = transposed_axes(signal.spatial, layer.filter_shape, strides, layer.padding)
    else:
        geometry = axes(signal.spatial, layer.filter_shape, layer.strides, layer.padding)
    sizes = _out(layer, at, signal, tuple(g.out for g in geometry))
    return signal.weighted((*sizes, layer.out_chan * layer.s[1]))


@trace.register(AvgPool)
@trace.register(SumPool)
def _(layer: Any, signal: Signals, at: str = "architecture") -> Signals:
    signal = positions(layer, signal, at, layer.window_shape)
    geometry = axes(signal.spatial, layer.window_shape, layer.strides, layer.padding)
    return replace(signal, shape=(*_out(layer, at, signal, tuple(g.out for g in geometry)), signal.channels))


@trace.register
def _(layer: MaxPool, signal: Signals, at: str = "architecture") -> Signals:
    signal = positions(layer, signal, at, layer.window_shape)
    geometry = axes(signal.spatial, layer.window_shape, layer.strides, layer.padding)
    clash = (
        f"{name(layer, at)}: products of maxima of many correlated Gaussians have no closed form. "
        "hint: AvgPool or SumPool, or ntk.monte_carlo_kernel_fn, which samples finite networks"
    )
    shape = (*_out(layer, at, signal, tuple(g.out for g in geometry)), signal.channels)
    return replace(signal, shape=shape, gaussian=False, centred=False, clash=signal.clash or clash)


@trace.register(GlobalAvgPool)
@trace.register(GlobalSumPool)
def _(layer: Any, signal: Signals, at: str = "architecture") -> Signals:
    signal = positions(layer, signal, at)
    return replace(signal, shape=(signal.channels,))


@trace.register
def _(layer: Flatten, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    alike = prod(signal.spatial) == 1  # the variance differs from position to position
    return replace(
        signal, shape=(prod(signal.shape),), gaussian=signal.gaussian and alike, alike=signal.alike and alike
    )
