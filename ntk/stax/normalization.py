"""Layers that rescale activations."""

from __future__ import annotations

from dataclasses import InitVar
from typing import Any, Literal

from ntk.stax.layer import Layer


class LayerNorm(Layer):
    """(x − mean) / √(variance + eps) over `axis` (axes of the batch array; the channel axis must be among them)."""

    axis: int | tuple[int, ...] = -1
    eps: float = 1e-12
    batch_axis: InitVar[Any] = 0
    channel_axis: InitVar[Any] = -1

    def check(self) -> None:
        if self.eps < 0:
            raise self.wrong("eps", "at least 0")


class BatchNorm(Layer):
    """Centring over the batch and division by a standard deviation, without weights (Ioffe & Szegedy 2015; Jacot et al.
    2019, section 3). The batch is the rows of a call: of x in ``apply_fn(params, x)``, of x1 and of x2, each by itself,
    in ``kernel_fn(x1, x2)``; there are no running means.

    Every channel has its mean over the rows subtracted. variance "layer": all are divided by √(mean + eps) of the
    squares that are left, the mean over rows and channels, as one number; at infinite width it is no longer random, so
    that the kernel is exact (`ntk.analytic.batches`). "channel": each channel by that of its own over the rows, the
    textbook's; that stays random at infinite width, for which such an architecture has no kernel.

    Takes vectors. For the infinite width it must come after the last nonlinearity and outside of `parallel`; as
    an entry depends on all rows, there are no tiles of the kernel, and the pipeline refuses it.
    """

    eps: float = 1e-5
    variance: Literal["layer", "channel"] = "layer"

    def check(self) -> None:
        if self.eps < 0:
            raise self.wrong("eps", "at least 0")


class Dropout(Layer):
    """Keep every activation with probability `rate` (divided by it) in mode "train"; the identity in mode "test".

    As for users of the original, `rate` is the probability of keeping.
    """

    rate: float
    mode: Literal["train", "test"] = "train"

    def check(self) -> None:
        if not 0 < self.rate <= 1:
            raise self.wrong("rate", "in (0, 1]")
