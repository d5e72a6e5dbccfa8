"""Branches at finite width."""

from __future__ import annotations

from functools import reduce
from operator import add, mul
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntk.finite.network import apply
from ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut, Identity


@apply.register
def _(layer: Identity, params: Any, x: Any, **kwargs: Any) -> Any:
    return x


@apply.register
def _(layer: FanOut, params: Any, x: Array, **kwargs: Any) -> tuple[Array, ...]:
    return (x,) * layer.num


@apply.register
def _(layer: FanInSum, params: Any, x: Any, **kwargs: Any) -> Array:
    return reduce(add, x)


@apply.register
def _(layer: FanInProd, params: Any, x: Any, **kwargs: Any) -> Array:
    return reduce(mul, x)


@apply.register
def _(layer: FanInConcat, params: Any, x: Any, **kwargs: Any) -> Array:
    return jnp.concatenate(x, axis=-1)
