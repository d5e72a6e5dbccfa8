"""The finite-width interpreter: parameters and forward pass of every layer.

One pair of rules per layer: `init` returns the parameters of a layer, `apply` its outputs. Parameters nest like the
architecture: a tuple with one entry per layer of a `serial` or branch of a `parallel`; () for a layer without any.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from ntk.errors import ArchitectureError
from ntk.stax.combinators import Parallel, Serial
from ntk.stax.layer import Layer
from ntk.stax.signal import Signal, Signals, entry, trace

#: Integer keys are not supported: as everywhere in JAX a key comes from `jax.random.key` or `jax.random.PRNGKey`.
Key = Array


@singledispatch
def init(layer: Any, key: Key, signal: Any) -> Any:
    """The parameters of `layer` for an incoming `signal`: () unless a rule says otherwise."""
    return ()


@singledispatch
def apply(layer: Any, params: Any, x: Any, **kwargs: Any) -> Any:
    """The outputs of `layer` for inputs x (batch, \\*spatial, channels), or a tuple of such between FanOut and FanIn.

    Keyword arguments: `rng`, the key of layers that draw at random (Dropout); `pattern`, the graph of Aggregate.
    """
    raise ArchitectureError(f"{type(layer).__name__} has no finite-width network")


@init.register
def _(layer: Serial, key: Key, signal: Signals) -> Any:
    params = []
    for inner, subkey in zip(layer.layers, _split(key, len(layer.layers)), strict=True):
        params.append(init(inner, subkey, signal))
        signal = trace(inner, signal)
    return tuple(params)


@apply.register
def _(layer: Serial, params: Any, x: Any, **kwargs: Any) -> Any:
    keys = _split(kwargs.pop("rng", None), len(layer.layers))
    for inner, p, key in zip(layer.layers, params, keys, strict=True):
        x = apply(inner, p, x, rng=key, **kwargs)
    return x


@init.register
def _(layer: Parallel, key: Key, signal: Signals) -> Any:
    signals = (signal,) if isinstance(signal, Signal) else signal
    keys = _split(key, len(layer.layers))
    return tuple(init(branch, k, s) for branch, k, s in zip(layer.layers, keys, signals, strict=True))


@apply.register
def _(layer: Parallel, params: Any, x: Any, **kwargs: Any) -> Any:
    keys = _split(kwargs.pop("rng", None), len(layer.layers))
    return tuple(
        apply(branch, p, inner, rng=key, **kwargs)
        for branch, p, inner, key in zip(layer.layers, params, x, keys, strict=True)
    )


def _split(key: Any, count: int) -> Any:
    return [None] * count if key is None else random.split(key, max(count, 1))[:count]


def initializer(layer: Layer) -> Callable[..., Any]:
    """``init_fn(key, input_shape) -> (output_shape, params)``; input_shape = (batch or -1, \\*spatial, channels), or a
    list of such for an architecture of several inputs."""

    from ntk.finite import rules

    def init_fn(key: Key, input_shape: Any) -> tuple[Any, Any]:
        many = isinstance(input_shape[0], (tuple, list))
        shapes = input_shape if many else (input_shape,)
        signals = tuple(entry(tuple(shape[1:])) for shape in shapes)
        incoming: Signals = signals if many else signals[0]
        after = trace(layer, incoming)
        batch = shapes[0][0]
        out = [(batch, *s.shape) for s in after] if isinstance(after, tuple) else (batch, *after.shape)
        return out, rules.init(layer, key, incoming)

    return init_fn


def forward(layer: Layer) -> Callable[..., Any]:
    """``apply_fn(params, x, rng=None, pattern=None)``: see `apply`."""
    from ntk.finite import rules  # registers the rules of every layer

    def apply_fn(params: Any, x: Any, **kwargs: Any) -> Any:
        return rules.apply(layer, params, jax.tree.map(jnp.asarray, x), **kwargs)

    return apply_fn
