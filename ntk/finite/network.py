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

from ntk.arrays import random_key, real
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
        random_key(key, "key")
        incoming = _incoming(input_shape)
        after = trace(layer, incoming)
        batch = (input_shape[0] if isinstance(incoming, tuple) else input_shape)[0]
        out = [(batch, *s.shape) for s in after] if isinstance(after, tuple) else (batch, *after.shape)
        return out, rules.init(layer, key, incoming)

    return init_fn


def _incoming(shape: Any) -> Signals:
    """The signals of inputs of that shape, or of those of a list."""
    if isinstance(shape, tuple | list) and shape and all(isinstance(one, tuple | list) for one in shape):
        return tuple(_signal(one) for one in shape)
    return _signal(shape)


def _signal(shape: Any) -> Signal:
    if not isinstance(shape, tuple | list) or len(shape) < 2:
        raise ArchitectureError(f"inputs must have shape (batch, *spatial, channels), got {shape!r}")
    return entry(tuple(shape[1:]))


def forward(layer: Layer) -> Callable[..., Any]:
    """``apply_fn(params, x, rng=None, pattern=None)``: see `apply`.

    Raises ArchitectureError for inputs that are no real numbers, or do not go with the architecture or `params`.
    """
    from ntk.finite import rules  # registers the rules of every layer

    def apply_fn(params: Any, x: Any, **kwargs: Any) -> Any:
        x = jax.tree.map(lambda a: jnp.asarray(real(a, "x", ArchitectureError)), x)
        try:
            return rules.apply(layer, params, x, **kwargs)
        except ArchitectureError:
            raise
        except (AttributeError, TypeError, ValueError):
            try:
                _check_fit(layer, params, x)
            except ArchitectureError as misfit:
                raise misfit from None
            raise

    return apply_fn


def _check_fit(layer: Layer, params: Any, x: Any) -> None:
    """Raise ArchitectureError unless init_fn makes such params for such inputs."""
    shapes = jax.tree.map(jnp.shape, x)
    if not all(isinstance(a, Array) for a in (x if isinstance(x, tuple | list) else [x])):
        raise ArchitectureError(f"x must be inputs or a tuple of such, got arrays of shapes {shapes}")
    incoming = _incoming(shapes)
    trace(layer, incoming)
    wanted = jax.eval_shape(lambda key: init(layer, key, incoming), random.key(0))
    if jax.tree.structure(params) != jax.tree.structure(wanted):
        raise ArchitectureError("params must be those that init_fn of this architecture makes, as a whole")
    for (path, need), have in zip(jax.tree.leaves_with_path(wanted), jax.tree.leaves(params), strict=True):
        if need.shape != jnp.shape(have):
            raise ArchitectureError(
                f"params{jax.tree_util.keystr(path)} has shape {jnp.shape(have)}, inputs of shape "
                f"{shapes} need {need.shape}: params and inputs do not go together"
            )
