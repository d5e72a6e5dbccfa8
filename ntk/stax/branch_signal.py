"""The type check of branches: which of them may be joined.

The kernels of branches join by a formula for each pair of inputs, Σ Kᵢ or Π Kᵢ, which leaves out what one branch has to
do with another. That is nothing where weights, which nothing else has, come after the FanOut: given all other branches,
such a branch is independent of them channel by channel, and of mean zero until a nonlinearity follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ntk.errors import ArchitectureError
from ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut, Identity
from ntk.stax.combinators import Parallel
from ntk.stax.layer import Layer
from ntk.stax.signal import Signal, Signals, name, one, trace

_HINT = (
    "hint: Dense or Conv at the end of a branch, or ntk.monte_carlo_kernel_fn, which samples finite networks"
)


@trace.register
def _(layer: Parallel, signal: Signals, at: str = "architecture") -> Signals:
    if not isinstance(signal, tuple):
        raise ArchitectureError(
            f"{at} (parallel) takes {len(layer.layers)} branches and got one input. hint: FanOut "
            "makes branches"
        )
    if len(signal) != len(layer.layers):
        raise ArchitectureError(
            f"{at} (parallel) has {len(layer.layers)} branches and got {len(signal)} inputs"
        )
    return tuple(
        trace(branch, s, f"{at}.parallel[{i}]")  # type: ignore[misc]
        for i, (branch, s) in enumerate(zip(layer.layers, signal, strict=True))
    )


@trace.register
def _(layer: Identity, signal: Signals, at: str = "architecture") -> Signals:
    return signal


@trace.register
def _(layer: FanOut, signal: Signals, at: str = "architecture") -> Signals:
    signal = one(layer, signal, at)
    return (replace(signal, shared=signal.shared + 1),) * layer.num


def _branches(layer: Layer, signal: Signals, at: str) -> tuple[Signal, ...]:
    """`signal` where `layer` joins branches. Raises ArchitectureError for a single input or branches of branches."""
    if isinstance(signal, Signal):
        raise ArchitectureError(
            f"{name(layer, at)} joins branches and got one input. hint: FanOut and parallel make them"
        )
    for i, branch in enumerate(signal):
        if not isinstance(branch, Signal):
            raise ArchitectureError(
                f"{name(layer, at)} joins branches, of which [{i}] ends in {len(branch)} branches of its own. "
                "hint: join these inside of it"
            )
    return signal


def _same_shape(layer: Layer, signal: Signals, at: str) -> tuple[Signal, ...]:
    signals = _branches(layer, signal, at)
    if len({s.shape for s in signals}) > 1:
        raise ArchitectureError(
            f"{name(layer, at)} needs branches of one shape, got " + ", ".join(str(s.shape) for s in signals)
        )
    return signals


def _joined(signals: tuple[Signal, ...], clash: str = "") -> Signal:
    """What holds for a join when it holds for every branch."""
    return Signal(
        signals[0].shape,
        gaussian=all(s.gaussian for s in signals),
        centred=all(s.centred for s in signals),
        alike=all(s.alike for s in signals),
        shared=max(0, *(s.shared - 1 for s in signals)),
        clash=next((s.clash for s in signals if s.clash), clash),
    )


def _two(faulty: Iterable[bool]) -> str:
    """The numbers of the branches that are `faulty` where there are two or more, else ""."""
    numbers = [str(i) for i, wrong in enumerate(faulty) if wrong]
    return ", ".join(numbers) if len(numbers) > 1 else ""


def _correlated(layer: Layer, signals: tuple[Signal, ...], at: str) -> str:
    """The clash of branches of which two depend on the same weights, or inputs, alone."""
    found = _two(s.shared > 0 for s in signals)
    return found and (
        f"{name(layer, at)} needs a layer with weights, since the FanOut, in all branches but one: without, branches "
        f"{found} are correlated. {_HINT}"
    )


@trace.register
def _(layer: FanInSum, signal: Signals, at: str = "architecture") -> Signals:
    signals = _same_shape(layer, signal, at)
    # Independent branches add up unless both have a mean: E[a b] = E[a] E[b].
    found = _two(not s.centred for s in signals)
    means = found and (
        f"{name(layer, at)} needs a layer with weights at the end of all branches but one: the means of branches "
        f"{found} need not be zero. {_HINT}"
    )
    return _joined(signals, _correlated(layer, signals, at) or means)


@trace.register
def _(layer: FanInProd, signal: Signals, at: str = "architecture") -> Signals:
    signals = _same_shape(layer, signal, at)
    # The mean over channels of a product is the product of their means where all but one are the same in all channels.
    found = _two(not s.alike for s in signals)
    unlike = found and (
        f"{name(layer, at)} needs channels of one distribution in all branches but one: those of branches {found} are "
        f"of the input, of several positions or of several branches. {_HINT}"
    )
    joined = _joined(signals, _correlated(layer, signals, at) or unlike)
    return replace(
        joined, gaussian=len(signals) == 1 and joined.gaussian, centred=any(s.centred for s in signals)
    )


@trace.register
def _(layer: FanInConcat, signal: Signals, at: str = "architecture") -> Signals:
    signals = _branches(layer, signal, at)
    if layer.axis not in (-1, len(signals[0].shape)):
        raise ArchitectureError(
            f"{name(layer, at)} joins channels, axis -1 or {len(signals[0].shape)}, got axis {layer.axis}"
        )
    if len({s.spatial for s in signals}) > 1:
        raise ArchitectureError(
            f"{name(layer, at)} needs branches that differ in channels only, got "
            + ", ".join(str(s.shape) for s in signals)
        )
    joined, alone = _joined(signals), len(signals) == 1
    return replace(
        joined,
        shape=(*joined.spatial, sum(s.channels for s in signals)),
        gaussian=alone and joined.gaussian,
        alike=alone and joined.alike,
    )
