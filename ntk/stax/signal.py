"""What flows through an architecture, inferred before anything is traced: shapes, and what may follow what.

`trace` is the type check of architectures: pure Python, one rule per layer, errors that name the layer's position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from ntk.errors import ArchitectureError
from ntk.stax.combinators import Serial
from ntk.stax.elementwise import Elementwise, Nonlinearity
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.normalization import BatchNorm, Dropout, LayerNorm


@dataclass(frozen=True, slots=True)
class Signal:
    """What one input has become at some layer, at infinite width and over random weights.

    shape: (\\*spatial, channels). gaussian: whether the entries are jointly Gaussian of mean zero, and independent and
    alike across channels: true after a layer with weights, which is what a nonlinearity needs before it. centred:
    whether the mean of every entry is known to be zero. alike: whether all channels have one distribution. shared: how
    many of the FanOuts around it, from the innermost, come after its last weights: their branches are correlated with
    it. clash: the first place where a layer did not get what it needs, for which there is no infinite-width kernel (""
    for none).
    """

    shape: tuple[int, ...]
    gaussian: bool = False
    centred: bool = False
    alike: bool = False
    shared: int = 0
    clash: str = ""

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[:-1]

    @property
    def channels(self) -> int:
        return self.shape[-1]

    def weighted(self, shape: tuple[int, ...], clash: str = "") -> Signal:
        """This signal of a new shape after a layer with weights, whose own clash is `clash`."""
        return Signal(shape, gaussian=True, centred=True, alike=True, clash=self.clash or clash)


Signals = Signal | tuple["Signal", ...]


def name(layer: Layer, at: str) -> str:
    """How messages call a layer: ``architecture[2] (Relu)``."""
    return f"{at} ({type(layer).__name__})"


def entry(input_shape: tuple[int, ...]) -> Signal:
    """The signal of inputs of shape (batch, \\*input_shape)."""
    if not input_shape or any(not isinstance(n, int) or n < 1 for n in input_shape):
        raise ArchitectureError(
            f"an input must have a shape (*spatial, channels) of positive sizes, got {input_shape}"
        )
    return Signal(tuple(input_shape))


def steps(layer: Layer, at: str) -> Iterator[tuple[Layer, str]]:
    """The layers that are applied one after another in `layer`, with their positions."""
    if isinstance(layer, Serial):
        for i, inner in enumerate(layer.layers):
            yield from steps(inner, f"{at}[{i}]")
    else:
        yield layer, at


def one(layer: Layer, signal: Signals, at: str) -> Signal:
    """`signal` where `layer` takes a single input. Raises ArchitectureError for a tuple."""
    if isinstance(signal, tuple):
        raise ArchitectureError(
            f"{name(layer, at)} takes one input and got {len(signal)} branches. hint: FanInSum, FanInConcat or "
            "FanInProd joins branches"
        )
    return signal


@singledispatch
def trace(layer: Any, signal: Signals, at: str = "architecture") -> Signals:
    """The signal after `layer`. Raises ArchitectureError, naming the layer by its position `at`, for a signal that
    the layer cannot take."""
    raise ArchitectureError(f"{at}: {type(layer).__name__} is not a layer")


@trace.register
def _(layer: Serial, signal: Signals, at: str = "architecture") -> Signals:
    for i, inner in enumerate(layer.layers):
        signal = trace(inner, signal, f"{at}[{i}]")
    return signal


@trace.register
def _(layer: Dense, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    if layer.parameterization == "standard" and signal.channels % layer.s[0]:
        raise ArchitectureError(
            f"{name(layer, at)}: its input has {signal.channels} channels, not a multiple of "
            f"s[0] = {layer.s[0]}"
        )
    return signal.weighted((*signal.spatial, layer.out_dim * layer.s[1]))


@trace.register
def _(layer: Nonlinearity, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    clash = ""
    if not signal.gaussian:
        clash = (
            f"{name(layer, at)} needs a layer with weights, such as Dense or Conv, between it and the input, "
            "nonlinearity, Dropout or join before it"
        )
        if signal.centred and not signal.alike:
            clash += ". hint: it may come before Flatten, and in each branch before FanInConcat"
    elif isinstance(layer, Elementwise) and layer.nngp_fn is None:
        clash = (
            f"{name(layer, at)}: nngp_fn is needed for the kernel. hint: ElementwiseNumerical integrates "
            "numerically, ntk.monte_carlo_kernel_fn samples finite networks"
        )
    return replace(signal, gaussian=False, centred=False, clash=signal.clash or clash)


@trace.register
def _(layer: LayerNorm, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    normalised_axes(layer, signal, at)
    clash = (
        ""
        if signal.centred
        else (
            f"{name(layer, at)} subtracts a mean over channels that the kernel does not hold unless it is zero, as it "
            "is after a layer with weights. hint: put it between the weights and the nonlinearity"
        )
    )
    return replace(signal, clash=signal.clash or clash)


@trace.register
def _(layer: BatchNorm, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    if signal.spatial:
        raise ArchitectureError(
            f"{name(layer, at)} takes vectors and got positions {signal.spatial}. hint: put it after Flatten or "
            "GlobalAvgPool"
        )
    clash = (
        ""
        if layer.variance == "layer"
        else (
            f"{name(layer, at)}: the variance of a channel by itself stays random at infinite width. "
            "hint: variance='layer', or ntk.monte_carlo_kernel_fn, which samples finite networks"
        )
    )
    return replace(signal, clash=signal.clash or clash)


def normalised_axes(layer: LayerNorm, signal: Signal, at: str = "architecture") -> tuple[int, ...]:
    """The spatial axes, counted from 0, over which `layer` normalises besides the channels."""
    rank = len(signal.spatial)
    axes = (layer.axis,) if isinstance(layer.axis, int) else layer.axis
    positive = {axis % (rank + 2) if -rank - 2 <= axis < rank + 2 else 0 for axis in axes}
    if 0 in positive or rank + 1 not in positive:
        raise ArchitectureError(
            f"{name(layer, at)}: axis must hold the channel axis {rank + 1} (or -1) and none "
            f"outside 1 … {rank + 1}, got {layer.axis}"
        )
    return tuple(sorted(axis - 1 for axis in positive if axis <= rank))


@trace.register
def _(layer: Dropout, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    return replace(signal, gaussian=signal.gaussian and (layer.mode == "test" or layer.rate == 1))
