"""Propagation through fixed linear maps of positions: the covariances are mapped as the network's positions are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from jax import Array

from ntk.analytic.mixing import on_both_sides, remade
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance
from ntk.finite.rules import apply
from ntk.stax.position_signal import resized
from ntk.stax.rearranging import DotGeneral, ImageResize, Index
from ntk.stax.signal import Signal, trace


def _mapped(
    state: Covariance, f: Callable[[Array], Array], spatial: tuple[int, ...], exact: bool
) -> Covariance:
    """The state after the map f of positions to `spatial`; exact: whether every new position is one of the old."""
    rank = len(state.spatial)

    def both(k: Array) -> Array:
        return on_both_sides(f, k, rank, state.full)

    # Residuals follow their positions where these are only chosen.
    before = state if exact else replace(state, residual=None)
    after = replace(before.map(both), shape=(*spatial, state.channels), full=state.full and bool(spatial))
    return after if exact else remade(state, after)


@propagate.register
def _(layer: ImageResize, state: Covariance) -> Covariance:
    spatial = resized(layer, state.spatial)
    if spatial == state.spatial:
        return state
    return _mapped(state, partial(apply, layer, ()), spatial, layer.method == "nearest")


@propagate.register
def _(layer: Index, state: Covariance) -> Covariance:
    return _mapped(state, partial(apply, layer, ()), _spatial(layer, state), True)


@propagate.register
def _(layer: DotGeneral, state: Covariance) -> Covariance:
    if layer.constant is None:
        return state
    if not isinstance(layer.constant, tuple):
        return state.map(lambda k: layer.constant**2 * k)
    if state.full or not state.spatial:
        return _mapped(state, partial(apply, layer, ()), _spatial(layer, state), False)
    # No sum: every new position is a multiple of an old one, its variance the square.
    square = replace(layer, **{"lhs" if layer.is_lhs else "rhs": _squared(layer.constant)})
    return _mapped(state, partial(apply, square, ()), _spatial(layer, state), True)


def _spatial(layer: Any, state: Covariance) -> tuple[int, ...]:
    after = trace(layer, Signal(state.shape))
    assert isinstance(after, Signal)
    return after.spatial


def _squared(constant: Any) -> Any:
    return tuple(map(_squared, constant)) if isinstance(constant, tuple) else constant**2
