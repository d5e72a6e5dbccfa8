"""How an architecture on positions falls into stages that can be computed one displacement at a time. No JAX.

A convolution, and every layer that acts on each position alone, maps covariances K[h, h'] of one displacement
d = h − h' to covariances of one displacement (d / stride); only a pooling mixes displacements, and only neighbouring
ones. A stage is a run of the former kind ended by one of the latter, or by the read-out.

Displacements are taken modulo a number M ≥ size of positions: K[d][h] = K[h, (h − d) mod M] holds every pair of
positions once, with nothing left over where M = size. M must be a multiple of all strides still to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, singledispatch
from itertools import product
from math import prod
from typing import Any

from ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut, Identity
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.elementwise import Nonlinearity
from ntk.stax.geometry import axes
from ntk.stax.layer import Layer
from ntk.stax.linear import Dense
from ntk.stax.normalization import Dropout, LayerNorm
from ntk.stax.signal import Signal, Signals, entry, normalised_axes, trace
from ntk.stax.spatial import AvgPool, Conv, Flatten, GlobalAvgPool, GlobalSumPool, SumPool

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """`layers`, one displacement at a time, and the layer that ends them.

    Per spatial axis: sizes and moduli on entry, their `stride`, sizes and moduli before `end`, and which
    displacements `end` needs.
    """

    layers: Serial
    end: Layer
    sizes: Ints
    moduli: Ints
    stride: Ints
    sizes_out: Ints
    moduli_out: Ints
    needed: tuple[Ints, ...]
    channels: int

    @property
    def steps(self) -> list[Ints]:
        """The displacements before `end` that are computed."""
        return list(product(*self.needed))

    def entering(self, axis: int) -> Ints:
        """The displacements on entry along `axis` that lead to those needed."""
        return tuple(sorted({self.stride[axis] * d % self.moduli[axis] for d in self.needed[axis]}))

    @property
    def window(self) -> Ints:
        """The window of the pooling at the end."""
        return self.end.window_shape  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Staged:
    """An architecture as stages, and the layers on vectors that follow."""

    stages: tuple[Stage, ...]
    rest: Serial


class _Unfit(Exception):
    """A layer that mixes displacements in a way no stage can."""


@cache
def staged(architecture: Layer, input_shape: Ints) -> Staged | None:
    """The stages of an architecture for inputs of shape (\\*spatial, channels); None for vectors, and for
    architectures with a layer on positions that has no place in a stage."""
    signal = entry(input_shape)
    if not signal.spatial:
        return None
    layers = architecture.layers if isinstance(architecture, Serial) else (architecture,)
    try:
        cut, rest = _cut(layers, signal)
        moduli = _moduli(cut, signal.spatial)
        return Staged(_stages(cut, signal, moduli), Serial(rest))
    except _Unfit:
        return None


Cut = list[tuple[tuple[Layer, ...], Layer]]


def _cut(layers: tuple[Layer, ...], signal: Signals) -> tuple[Cut, tuple[Layer, ...]]:
    """Runs of layers with their ends, and the layers on vectors."""
    found: Cut = []
    run: list[Layer] = []
    for i, layer in enumerate(layers):
        if isinstance(layer, _ENDS):
            found.append((tuple(run), layer))
            run = []
        else:
            stride_of(layer, signal)
            run.append(layer)
        signal = trace(layer, signal, f"[{i}]")
        if isinstance(signal, Signal) and not signal.spatial:
            return found, layers[i + 1 :]
    raise _Unfit


_ENDS = (AvgPool, SumPool, GlobalAvgPool, GlobalSumPool, Flatten)
_POSITIONWISE = (Nonlinearity, Dense, Identity, FanOut, FanInSum, FanInProd, FanInConcat)


@singledispatch
def stride_of(layer: Any, signal: Signals) -> Ints:
    """The stride of a layer that keeps displacements apart, for every spatial axis. Raises _Unfit for others."""
    if not isinstance(layer, _POSITIONWISE):
        raise _Unfit
    return _ones(signal)


def _ones(signal: Signals) -> Ints:
    first = signal[0] if isinstance(signal, tuple) else signal
    return (1,) * len(first.spatial)


@stride_of.register
def _(layer: Conv, signal: Signal) -> Ints:
    return layer.strides or _ones(signal)


@stride_of.register
def _(layer: LayerNorm, signal: Signal) -> Ints:
    if normalised_axes(layer, signal):
        raise _Unfit
    return _ones(signal)


@stride_of.register
def _(layer: Dropout, signal: Signal) -> Ints:
    if layer.mode == "train" and layer.rate != 1:
        raise _Unfit
    return _ones(signal)


@stride_of.register
def _(layer: Serial, signal: Any) -> Ints:
    total = _ones(signal)
    for inner in layer.layers:
        total = _times(total, stride_of(inner, signal))
        signal = trace(inner, signal)
    return total


@stride_of.register
def _(layer: Parallel, signal: Any) -> Ints:
    strides = {stride_of(branch, s) for branch, s in zip(layer.layers, signal, strict=True)}
    if len(strides) > 1:
        raise _Unfit
    return strides.pop()


def _times(a: Ints, b: Ints) -> Ints:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _over(a: Ints, b: Ints) -> Ints:
    if any(x % y for x, y in zip(a, b, strict=True)):
        raise _Unfit
    return tuple(x // y for x, y in zip(a, b, strict=True))


def _is_pool(end: Layer) -> bool:
    return isinstance(end, (AvgPool, SumPool))


def _moduli(cut: Cut, spatial: Ints) -> Ints:
    """The least moduli of the input that all strides divide."""
    total = (1,) * len(spatial)
    for run, end in cut:
        for layer in _convolutions(run):
            if layer.strides:
                total = _times(total, layer.strides)
        if _is_pool(end):
            total = _times(total, end.window_shape)  # type: ignore[attr-defined]
    # Strides of parallel branches count once.
    return tuple(-(-n // s) * s for n, s in zip(spatial, total, strict=True))


def _convolutions(layers: tuple[Layer, ...]) -> Iterator[Conv]:
    """The convolutions in `layers`, of parallel branches those of the first with a stride."""
    for layer in layers:
        if isinstance(layer, Conv):
            yield layer
        elif isinstance(layer, Serial):
            yield from _convolutions(layer.layers)
        elif isinstance(layer, Parallel):
            yield from _convolutions((layer.layers[0],))


def _stages(cut: Cut, signal: Signals, moduli: Ints) -> tuple[Stage, ...]:
    found: list[Stage] = []
    for run, end in cut:
        assert isinstance(signal, Signal)
        before, entering = signal, moduli
        signal, moduli = _through(Serial(run), signal, moduli)
        assert isinstance(signal, Signal)
        found.append(
            Stage(
                Serial(run), end, before.spatial, entering, _over(entering, moduli), signal.spatial, moduli, (),
                before.channels,
            )
        )  # fmt: skip
        if _is_pool(end):
            moduli = _pooled_moduli(end, signal, moduli)
        signal = trace(end, signal)
    return _demanded(found)


def _pooled_moduli(end: Any, signal: Signal, moduli: Ints) -> Ints:
    if (end.strides or (1,) * len(end.window_shape)) != end.window_shape:
        raise _Unfit
    if end.padding != "VALID" and any(n % w for n, w in zip(signal.spatial, end.window_shape, strict=True)):
        raise _Unfit
    return _over(moduli, end.window_shape)


def _through(layer: Layer, signal: Signals, moduli: Ints) -> tuple[Signals, Ints]:
    """Signal and moduli after a layer; raises _Unfit where the moduli are too small or not divided by a stride."""
    if isinstance(layer, Serial):
        for inner in layer.layers:
            signal, moduli = _through(inner, signal, moduli)
        return signal, moduli
    after = trace(layer, signal)
    if isinstance(layer, Parallel):
        ends = {
            _through(branch, s, moduli)[1]
            for branch, s in zip(layer.layers, signal, strict=True)  # type: ignore[arg-type]
        }
        if len(ends) > 1:
            raise _Unfit
        return after, ends.pop()
    if isinstance(layer, Conv):
        assert isinstance(signal, Signal)
        geometry = axes(signal.spatial, layer.filter_shape, layer.strides, layer.padding)
        if any(g.circular and m != g.size for g, m in zip(geometry, moduli, strict=True)):
            raise _Unfit
        moduli = _over(moduli, layer.strides or (1,) * len(moduli))
        if any(m < g.out for g, m in zip(geometry, moduli, strict=True)):
            raise _Unfit
    return after, moduli


def _demanded(stages: list[Stage]) -> tuple[Stage, ...]:
    """The stages with the displacements that each must compute, found from the read-out backwards."""
    from dataclasses import replace

    found: list[Stage] = []
    for stage in reversed(stages):
        rank = range(len(stage.sizes))
        if isinstance(stage.end, Flatten):
            needed = tuple((0,) for _ in rank)
        elif _is_pool(stage.end):
            later = found[-1]
            needed = tuple(_pool_needs(later.entering(i), stage.window[i], stage.moduli_out[i]) for i in rank)
        else:
            needed = tuple(tuple(range(stage.moduli_out[i])) for i in rank)
        found.append(replace(stage, needed=needed))
    return tuple(reversed(found))


def _pool_needs(displacements: Ints, window: int, modulus: int) -> Ints:
    """The displacements that pooling sums for those of its output."""
    return tuple(
        sorted({(window * d + t) % modulus for d in displacements for t in range(1 - window, window)})
    )


def entries(stage: Stage) -> int:
    """Covariances per pair of inputs that a layer of the stage's end holds in all steps together."""
    return len(stage.steps) * prod(stage.sizes_out)
