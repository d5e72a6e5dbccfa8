"""Published architectures by name, as values of `ntk.stax`.

`zoo.myrtle(5)` is a stax layer like any other; a specification or run.yaml writes ``{zoo.myrtle: {depth: 5}}``, which
is written out in full when it is read: fingerprints and stored runs know only the layers. Widths concern finite
networks alone. Read-outs give one output; inputs to the convolutional ones are (height, width, channels).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, get_type_hints

from ntk.errors import ArchitectureError
from ntk.stax.arguments import Mismatch, coerce
from ntk.stax.branching import FanInSum, FanOut, Identity
from ntk.stax.combinators import MOST_LAYERS, Serial, parallel, serial
from ntk.stax.elementwise import Relu
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.spatial import AvgPool, Conv, Flatten, GlobalAvgPool

#: Every function of this module that a specification may name, by that name.
ARCHITECTURES: dict[str, Callable[..., Serial]] = {}

#: Keeps the variance of ReLU activations from layer to layer (He et al. 2015).
CRITICAL = math.sqrt(2)


def _named(make: Callable[..., Serial]) -> Callable[..., Serial]:
    """`make` with its arguments brought to their declared types, under its name in ARCHITECTURES."""
    signature, name = inspect.signature(make), f"zoo.{make.__name__}"
    hint = f"hint: {name}({', '.join(signature.parameters)})"

    @functools.wraps(make)
    def checked(*args: Any, **kwargs: Any) -> Serial:
        for argument in kwargs:
            if argument not in signature.parameters:
                raise ArchitectureError(f"{name} has no argument {argument!r}. {hint}")
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArchitectureError(f"{name}: {error}. {hint}") from None
        hints = get_type_hints(make)
        for argument, value in given.arguments.items():
            try:
                given.arguments[argument] = coerce(value, hints[argument])
            except Mismatch as mismatch:
                raise ArchitectureError(f"{name}: {argument} must be {mismatch}, got {value!r}") from None
        return make(*given.args, **given.kwargs)

    ARCHITECTURES[make.__name__] = checked
    return checked


def _between(name: str, argument: str, value: int, least: int, most: int = MOST_LAYERS) -> None:
    if not least <= value <= most:
        raise ArchitectureError(f"zoo.{name}: {argument} must be from {least} to {most}, got {value}")


@_named
def fc(depth: int, width: int = 512, W_std: float = CRITICAL, b_std: float | None = None) -> Serial:
    """Fully connected: `depth` hidden layers of `width` ReLU units and a linear read-out, all weights of the same
    variance (Jacot et al. 2018; Lee et al. 2018)."""
    _between("fc", "depth", depth, 0, MOST_LAYERS // 2 - 1)
    return serial(*[Dense(width, W_std, b_std), Relu()] * depth, Dense(1, W_std, b_std))


@_named
def myrtle(
    depth: Literal[5, 7, 10], width: int = 512, W_std: float = CRITICAL, b_std: float | None = None
) -> Serial:
    """The Myrtle networks of Shankar et al. 2020 (section 4): 3×3 convolutions and ReLU in three groups, each followed
    by an average over 2×2.

    The paper ends with two more averages over 2×2, which on its 32×32 images leave one position: that is the mean over
    all, as it is taken here for images of any size.
    """
    groups = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}[depth]
    block = [_conv(width, W_std=W_std, b_std=b_std), Relu()]
    first, second, third = ([*block] * count for count in groups)
    halve = AvgPool((2, 2), (2, 2))
    return serial(*first, halve, *second, halve, *third, GlobalAvgPool(), Dense(1, W_std, b_std))


@_named
def cntk_vec(depth: int, width: int = 512) -> Serial:
    """CNTK-V of Arora et al. 2019 (section 4): depth − 1 convolutions 3×3 with ReLU, then a fully connected layer of
    all positions. The paper's kernel is this one times a constant."""
    return _cntk("cntk_vec", depth, width, Flatten())


@_named
def cntk_gap(depth: int, width: int = 512) -> Serial:
    """CNTK-GAP of Arora et al. 2019 (section 4): depth − 1 convolutions 3×3 with ReLU, the mean over all positions,
    and a fully connected layer, all of them trained. The paper's kernel is this one times a constant."""
    return _cntk("cntk_gap", depth, width, GlobalAvgPool())


def _cntk(name: str, depth: int, width: int, read: Layer) -> Serial:
    _between(name, "depth", depth, 2, MOST_LAYERS // 2 - 1)
    return serial(*[_conv(width, W_std=CRITICAL), Relu()] * (depth - 1), read, Dense(1))


@_named
def wide_resnet(block_size: int = 4, k: int = 1, W_std: float = 1.0, b_std: float | None = None) -> Serial:
    """The wide residual network of Zagoruyko & Komodakis 2016 without batch normalisation, as in the README of
    neural_tangents: three groups of `block_size` residual blocks with 16 k, 32 k and 64 k channels, the second and
    third of stride 2, and the mean over all positions (there an average over 8×8, all that is left of 32×32)."""
    _between("wide_resnet", "block_size", block_size, 1, 500)
    _between("wide_resnet", "k", k, 1)
    conv = functools.partial(_conv, W_std=W_std, b_std=b_std)

    def block(width: int, strides: tuple[int, int], shortcut: Layer) -> Serial:
        main = serial(Relu(), conv(width, strides=strides), Relu(), conv(width))
        return serial(FanOut(2), parallel(main, shortcut), FanInSum())

    def group(width: int, strides: tuple[int, int]) -> Serial:
        first = block(width, strides, conv(width, strides=strides))
        return serial(first, *[block(width, (1, 1), Identity())] * (block_size - 1))

    groups = [group(16 * k, (1, 1)), group(32 * k, (2, 2)), group(64 * k, (2, 2))]
    return serial(conv(16), *groups, GlobalAvgPool(), Dense(1, W_std, b_std))


def _conv(width: int, **kwargs: Any) -> Conv:
    return Conv(width, (3, 3), padding="SAME", **kwargs)
