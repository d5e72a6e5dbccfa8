"""Layers made of layers."""

from __future__ import annotations

from typing import Any

from ntk.errors import ArchitectureError
from ntk.stax.layer import Layer

#: The most layers of an architecture, written out: far above any in use, far below what would exhaust memory.
MOST_LAYERS = 10_000


def _layers(layers: tuple[Any, ...], name: str) -> None:
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise ArchitectureError(
                f"{name}: argument {position} must be a layer, got {type(layer).__name__}: {layer!r}"
            )
    _bounded(sum(size(layer) for layer in layers), name)


def _bounded(count: int, name: str) -> None:
    if count > MOST_LAYERS:
        raise ArchitectureError(f"{name}: an architecture has at most {MOST_LAYERS} layers, got {count}")


def size(layer: Layer) -> int:
    """How many layers `layer` is made of."""
    return sum(map(size, layer.layers)) if isinstance(layer, (Serial, Parallel)) else 1


class Serial(Layer, named=False):
    """Layers one after another; made by `serial`, never nested directly in another Serial."""

    layers: tuple[Any, ...]

    def check(self) -> None:
        _layers(self.layers, "serial")


class Parallel(Layer, named=False):
    """One branch per input of a tuple of inputs; made by `parallel`."""

    layers: tuple[Any, ...]

    def check(self) -> None:
        _layers(self.layers, "parallel")
        if not self.layers:
            raise ArchitectureError("parallel: needs at least one branch, got none")


def serial(*layers: Layer) -> Serial:
    """Composition, first layer first. A serial inside a serial is flattened: composition is associative, so that
    architectures which are equal as functions of their layers are equal as values.

    Raises ArchitectureError when an argument is not a layer.
    """
    _layers(layers, "serial")
    flat: list[Any] = []
    for layer in layers:
        flat.extend(layer.layers if isinstance(layer, Serial) else [layer])
    return Serial(tuple(flat))


def parallel(*layers: Layer) -> Parallel:
    """Apply the i-th layer to the i-th of a tuple of inputs (as `FanOut` makes it).

    Raises ArchitectureError when an argument is not a layer.
    """
    return Parallel(layers)


def repeat(layer: Layer, n: int) -> Serial:
    """`layer` composed with itself n ≥ 0 times: ``serial(*[layer] * n)``.

    Raises ArchitectureError for another n or more layers than `MOST_LAYERS` in all.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ArchitectureError(f"repeat: n must be an integer of at least 0, got {n!r}")
    _layers((layer,), "repeat")
    _bounded(n * max(1, size(layer)), "repeat")
    return serial(*[layer] * n)
