"""Layers that rescale activations."""

from __future__ import annotations

from typing import Literal

from ntk.stax.layer import Layer


class LayerNorm(Layer):
    """(x − mean) / √(variance + eps) over `axis` (axes of the batch array; the channel axis must be among them)."""

    axis: int | tuple[int, ...] = -1
    eps: float = 1e-12

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
