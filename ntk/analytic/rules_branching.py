"""Propagation through branches. Branches are taken as uncorrelated, as they are where all but one end in weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import add, and_, mul
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntk.analytic.nonlinearity import resynchronised
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance, Residual
from ntk.stax.branching import FanInConcat, FanInProd, FanInSum, FanOut, Identity

Branches = tuple[Covariance, ...]


@propagate.register
def _(layer: Identity, state: Any) -> Any:
    return state


@propagate.register
def _(layer: FanOut, state: Covariance) -> Branches:
    return (state,) * layer.num


def _worst_doubt(states: Branches) -> Array | None:
    doubts = [s.doubt for s in states if s.doubt is not None]
    return reduce(lambda a, b: a | b if a.dtype == bool else a + b, doubts) if doubts else None


def _tangent(states: Branches, join: Callable[[list[Array]], Array]) -> Array | None:
    parts = [s.ntk for s in states if s.ntk is not None]
    return join(parts) if parts else None


def _weighted(states: Branches, weights: list[float]) -> Covariance:
    """Σ wᵢ Kᵢ of every covariance."""

    def total(parts: list[tuple[float, Array]]) -> Array:
        return reduce(add, [k if w == 1 else w * k for w, k in parts])

    def over(pick: Callable[[Covariance], Array]) -> Array:
        return total([(w, pick(s)) for w, s in zip(weights, states, strict=True)])

    tangents = [(w, s.ntk) for w, s in zip(weights, states, strict=True) if s.ntk is not None]
    after = replace(
        states[0],
        nngp=over(lambda s: s.nngp),
        ntk=total(tangents) if tangents else None,
        cov1=over(lambda s: s.cov1),
        cov2=over(lambda s: s.cov2),
        doubt=_worst_doubt(states),
    )
    residuals = [(w, s.residual) for w, s in zip(weights, states, strict=True) if s.residual is not None]
    if not residuals:
        return after
    first = residuals[0][1]
    added = Residual(
        first.scale,
        total([(w, r.minus) for w, r in residuals]),
        total([(w, r.plus) for w, r in residuals]),
        total([(w, r.delta) for w, r in residuals]),
    )
    # Residuals add where the branches agree on the scale of the pair (a LayerNorm in one of them changes it).
    agree = reduce(and_, [r.scale == first.scale for _, r in residuals])
    other = resynchronised(_all_equal(states), after).residual
    return replace(after, residual=jax.tree.map(lambda a, b: jnp.where(agree, a, b), added, other))


def _all_equal(states: Branches) -> Covariance:
    """A state whose residuals vanish where those of all branches do."""
    residuals = [s.residual for s in states if s.residual is not None]
    return replace(
        states[0],
        residual=Residual(
            reduce(lambda a, b: a * b, [r.scale for r in residuals]),
            reduce(add, [r.minus for r in residuals]),
            residuals[0].plus,
            reduce(add, [abs(r.delta) for r in residuals]),
        ),
    )


@propagate.register
def _(layer: FanInSum, states: tuple) -> Covariance:
    return _weighted(states, [1.0] * len(states))


@propagate.register
def _(layer: FanInConcat, states: tuple) -> Covariance:
    channels = sum(s.channels for s in states)
    after = _weighted(states, [s.channels / channels for s in states])
    return replace(after, shape=(*after.spatial, channels))


@propagate.register
def _(layer: FanInProd, states: tuple) -> Covariance:
    """K = Π Kᵢ, T = Σᵢ Tᵢ Π_{j≠i} Kⱼ."""
    tangents = [
        reduce(mul, [s.ntk if j == i else s.nngp for j, s in enumerate(states)])
        for i, state in enumerate(states)
        if state.ntk is not None
    ]
    after = replace(
        states[0],
        nngp=reduce(mul, [s.nngp for s in states]),
        ntk=reduce(add, tangents) if tangents else None,
        cov1=reduce(mul, [s.cov1 for s in states]),
        cov2=reduce(mul, [s.cov2 for s in states]),
        doubt=_worst_doubt(states),
    )
    return after if states[0].residual is None else resynchronised(_all_equal(states), after)
