"""Layers on positions: filters, pooling, resizing. Arrays are (batch, \\*spatial, channels)."""

from __future__ import annotations

from dataclasses import InitVar
from typing import Any, Literal

from ntk.stax.layer import Layer
from ntk.stax.linear import Parameterization, check_weights

Padding = Literal["VALID", "SAME", "CIRCULAR"]


class _Filter(Layer, named=False):
    """A filter with weights: what Conv, ConvLocal and ConvTranspose share."""

    out_chan: int
    filter_shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: Padding = "VALID"
    W_std: float = 1.0
    b_std: float | None = None
    dimension_numbers: InitVar[Any] = None
    parameterization: Parameterization = "ntk"
    s: tuple[int, int] = (1, 1)

    def check(self) -> None:
        if self.out_chan < 1:
            raise self.wrong("out_chan", "at least 1")
        _check_window(self, "filter_shape")
        check_weights(self)


class Conv(_Filter):
    """Convolution: every output position sums a window of the input with one shared set of weights."""


class ConvLocal(_Filter):
    """A convolution whose weights are independent from position to position."""


class ConvTranspose(_Filter):
    """The transpose of a strided convolution: sizes grow by `strides`. Padding VALID or SAME, as jax.lax.conv_transpose
    pads."""


class _Pool(Layer, named=False):
    """A window sum without weights."""

    window_shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    padding: Padding = "VALID"

    def check(self) -> None:
        _check_window(self, "window_shape")


class AvgPool(_Pool):
    """The mean over windows; with `normalize_edges` the mean over the part of a window inside the input, else windows
    that stick out of it (padding SAME) are divided by their full size."""

    normalize_edges: bool = False
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1


class SumPool(_Pool):
    """The sum over windows."""

    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1


class MaxPool(_Pool):
    """The maximum over windows, of the part inside the input where they stick out of it. For finite networks: the
    infinite-width kernel has no closed form and is refused."""


class GlobalAvgPool(Layer):
    """The mean over all positions."""

    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1


class GlobalSumPool(Layer):
    """The sum over all positions."""

    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1


class Flatten(Layer):
    """All positions and channels as one vector of channels."""

    batch_axis: InitVar[Any] = 0
    batch_axis_out: InitVar[Any] = 0


def _check_window(layer: Layer, window: str) -> None:
    sizes = getattr(layer, window)
    if not sizes or min(sizes) < 1:
        raise layer.wrong(window, "sizes of at least 1, one for each spatial axis")
    strides = getattr(layer, "strides")  # noqa: B009 (the base class has none)
    if strides is not None and (len(strides) != len(sizes) or min(strides) < 1):
        raise layer.wrong("strides", f"{len(sizes)} integers of at least 1, as {window}")
