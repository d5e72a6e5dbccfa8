"""Layers that make branches and join them."""

from __future__ import annotations

from ntk.stax.combinators import MOST_LAYERS
from ntk.stax.layer import Layer


class Identity(Layer):
    """x."""


class FanOut(Layer):
    """`num` copies of the input, one for each branch of a `parallel`."""

    num: int

    def check(self) -> None:
        if not 1 <= self.num <= MOST_LAYERS:
            raise self.wrong("num", f"from 1 to {MOST_LAYERS}")


class FanInSum(Layer):
    """The sum of branches of equal shape."""


class FanInProd(Layer):
    """The elementwise product of branches of equal shape."""


class FanInConcat(Layer):
    """Branches side by side along the channels: axis −1, the only axis that joins independent channels."""

    axis: int = -1
