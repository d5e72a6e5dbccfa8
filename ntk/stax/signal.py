"""What flows through an architecture, inferred before anything is traced: shapes, and what may follow what.

`trace` is the type check of architectures: pure Python, one rule per layer, errors that name the layer's position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

from ntk.errors import ArchitectureError
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.elementwise import ABRelu, Abs, Erf, LeakyRelu, Relu
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense


@dataclass(frozen=True, slots=True)
class Signal:
    """What one input has become at some layer.

    shape: (\\*spatial, channels). gaussian: whether, at infinite width, the pre-activations are jointly Gaussian and
    independent across channels: true after a layer with weights, which is what a nonlinearity needs before it.
    """

    shape: tuple[int, ...]
    gaussian: bool = False

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[:-1]

    @property
    def channels(self) -> int:
        return self.shape[-1]


Signals = Signal | tuple["Signal", ...]

ELEMENTWISE = (Relu, LeakyRelu, ABRelu, Abs, Erf)


def name(layer: Layer, at: str) -> str:
    """How messages call a layer: ``architecture[2] (Relu)``."""
    return f"{at} ({type(layer).__name__})"


def entry(input_shape: tuple[int, ...]) -> Signal:
    """The signal of inputs of shape (batch, \\*input_shape)."""
    if not input_shape or any(not isinstance(n, int) or n < 1 for n in input_shape):
        raise ArchitectureError(f"an input must have a shape (*spatial, channels) of positive sizes, got {input_shape}")
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
            "FanInProd joins branches")
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
def _(layer: Parallel, signal: Signals, at: str = "architecture") -> Signals:
    if not isinstance(signal, tuple):
        raise ArchitectureError(f"{at} (parallel) takes {len(layer.layers)} branches and got one input. hint: FanOut "
                                "makes branches")
    if len(signal) != len(layer.layers):
        raise ArchitectureError(f"{at} (parallel) has {len(layer.layers)} branches and got {len(signal)} inputs")
    return tuple(trace(branch, s, f"{at}.parallel[{i}]")  # type: ignore[misc]
                 for i, (branch, s) in enumerate(zip(layer.layers, signal, strict=True)))


@trace.register
def _(layer: Dense, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    if layer.parameterization == "standard" and signal.channels % layer.s[0]:
        raise ArchitectureError(f"{name(layer, at)}: its input has {signal.channels} channels, not a multiple of "
                                f"s[0] = {layer.s[0]}")
    return Signal((*signal.spatial, layer.out_dim * layer.s[1]), gaussian=True)


def _elementwise(layer: Layer, signal: Signals, at: str = "architecture") -> Signals:
    return replace(one(layer, signal, at), gaussian=False)


for _kind in ELEMENTWISE:
    trace.register(_kind, _elementwise)
