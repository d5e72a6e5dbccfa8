"""Layers with weights, and layers that are linear without any."""

from __future__ import annotations

from dataclasses import InitVar
from typing import Any, Literal

from ntk.stax.layer import Layer

Parameterization = Literal["ntk", "standard"]


#: The largest standard deviation: its square is a float64.
_LARGEST_STD = 1e154


def check_deviations(layer: Any, *arguments: str) -> None:
    """Raise ArchitectureError, naming the argument, for a standard deviation that is negative or too large."""
    for argument in arguments:
        value = getattr(layer, argument)
        if value is not None and not 0 <= value <= _LARGEST_STD:
            raise layer.wrong(argument, f"from 0 to {_LARGEST_STD}")


def check_weights(layer: Any) -> None:
    """What Dense and the filters ask of their common arguments. Raises ArchitectureError naming the argument."""
    check_deviations(layer, "W_std", "b_std")
    if min(layer.s) < 1:
        raise layer.wrong("s", "two integers of at least 1")


class Dense(Layer):
    """Fully connected: z = W_std/√d W x + b_std b with W, b ~ N(0, 1) (``parameterization='ntk'``), or
    z = W x + b with W ~ N(0, W_std²/d), b ~ N(0, b_std²) (``'standard'``, Sohl-Dickstein et al. 2020).

    `b_std` None is no bias. `s` are the width scalings of the layer's input and output in the standard
    parameterization: W has shape (s[0]·d, s[1]·out_dim) where d is the base width of the layer's input. Acts on the
    last axis; any spatial axes are kept.
    """

    out_dim: int
    W_std: float = 1.0
    b_std: float | None = None
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1
    parameterization: Parameterization = "ntk"
    s: tuple[int, int] = (1, 1)

    def check(self) -> None:
        if self.out_dim < 1:
            raise self.wrong("out_dim", "at least 1")
        check_weights(self)
