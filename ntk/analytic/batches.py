"""The kernel of an architecture with BatchNorm, for which a batch is one object: kernels of all its rows at once.

With K the NNGP of the layers before between the rows of two batches, H = I − 11ᵀ/n, and K₁₁, K₂₂ those of each batch
with itself (Jacot et al. 2019, section 3, for the centring):

    K' = H K H / (s₁ s₂),   T' = H T H / (s₁ s₂),   s² = tr(H K₁₁ H) / n₁ + ε   (likewise s₂)

since s, a mean over infinitely many channels, is no longer random and its gradient vanishes, as for LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntk.analytic.rules import propagate
from ntk.analytic.state import Covariance
from ntk.stax.combinators import Serial, serial
from ntk.stax.layer import Layer
from ntk.stax.normalization import BatchNorm
from ntk.stax.signal import Signal, entry, trace

Kernels = dict[str, Array]
#: (layer, x1, x2 or None, names) → kernels (n1, n2) by name.
Function = Callable[[Layer, Any, Any, tuple[str, ...]], Any]


def normalises_batches(layer: Layer) -> bool:
    """Whether `layer` is BatchNorm or a composition with one in it (elsewhere it is refused)."""
    return any(isinstance(inner, BatchNorm) for inner in _steps(layer))


def over_batches(kernel: Function, layer: Layer, x1: Any, x2: Any, names: tuple[str, ...]) -> Kernels:
    """The kernels of x1 with x2 (None: with itself) by those of the layers before the last BatchNorm, which `kernel`
    computes; linear layers may follow."""
    steps = _steps(layer)
    at = max(i for i, inner in enumerate(steps) if isinstance(inner, BatchNorm))
    before, norm, after = serial(*steps[:at]), steps[at], serial(*steps[at + 1 :])
    assert isinstance(norm, BatchNorm)
    signal = trace(serial(before, norm), entry(tuple(x1.shape[1:])))
    assert isinstance(signal, Signal)
    if normalises_batches(before):
        kernel = _recursive(kernel)
    wanted = ("nngp", "ntk") if "ntk" in names else ("nngp",)
    own1 = kernel(before, x1, None, wanted if x2 is None else ("nngp",))
    own2 = own1 if x2 is None else kernel(before, x2, None, ("nngp",))
    between = own1 if x2 is None else kernel(before, x1, x2, wanted)
    first, second = Batch.of(own1["nngp"], norm.eps), Batch.of(own2["nngp"], norm.eps)
    scale = first.deviation * second.deviation
    centred = {name: _centred(jnp.asarray(between[name]), x2 is None) / scale for name in wanted}

    def finish(nngp: Array, ntk: Array | None, var1: Array, var2: Array, outer: bool) -> Kernels:
        state = Covariance(
            nngp, ntk, var1, var2, None, None, signal.shape, False, outer, not outer, wants_ntk="ntk" in names
        )
        state = propagate(after, state)
        return {"nngp": state.nngp, "ntk": jnp.zeros_like(state.nngp) if state.ntk is None else state.ntk}

    ntk = centred.get("ntk")
    values = finish(centred["nngp"], ntk, first.variances[:, None], second.variances[None, :], True)
    if x2 is None:
        var = first.variances
        own = finish(var, None if ntk is None else jnp.diagonal(ntk), var, var, False)
        rows = jnp.arange(len(first.variances))
        values = {name: value.at[rows, rows].set(own[name]) for name, value in values.items()}
    return {name: values[name] for name in names}


def _steps(layer: Layer) -> tuple[Layer, ...]:
    return layer.layers if isinstance(layer, Serial) else (layer,)


def _recursive(kernel: Function) -> Function:
    return lambda layer, x1, x2, names: over_batches(kernel, layer, x1, x2, names)


@dataclass(frozen=True, slots=True)
class Batch:
    """deviation: s. variances: (n,), of every row after normalisation."""

    deviation: Array
    variances: Array

    @staticmethod
    def of(own: Array, eps: float) -> Batch:
        """Of a batch with the NNGP `own` (n, n) with itself before normalisation."""
        variances = jnp.maximum(jnp.diagonal(_centred(jnp.asarray(own), True)), 0)
        square = jnp.mean(variances) + eps
        return Batch(jnp.sqrt(square), variances / square)


def _centred(k: Array, symmetric: bool) -> Array:
    """H k H; symmetric bit for bit where k is."""
    columns = jnp.mean(k, axis=0)
    rows = columns if symmetric else jnp.mean(k, axis=1)
    return k - (rows[:, None] + columns[None, :]) + jnp.mean(columns)
