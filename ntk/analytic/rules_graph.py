"""Propagation through graphs: K' = A₁ᵀ K A₂, T' = A₁ᵀ T A₂ (Du et al. 2019)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax.numpy as jnp
from jax import Array

from ntk.analytic.mixing import grouped, remade, sandwich, ungrouped
from ntk.analytic.propagate import propagate
from ntk.analytic.state import Covariance
from ntk.finite.rules_graph import adjacency
from ntk.stax.graph import Aggregate


@propagate.register
def _(layer: Aggregate, state: Covariance) -> Covariance:
    axes = layer.axes(len(state.spatial))
    if state.graphs is None or axes is None:
        return state
    sizes = tuple(state.spatial[axis] for axis in axes)

    def weights(pattern: Array, side: int) -> Array:
        """Aᵀ, (V, V, pairs)."""
        of_rows = adjacency(layer, pattern, pattern.shape[0], sizes, state.nngp.dtype)
        transposed = jnp.transpose(of_rows, (2, 1, 0))
        return jnp.expand_dims(transposed, -1 if side == 0 else -2) if state.outer else transposed

    left, right = (weights(pattern, side) for side, pattern in enumerate(state.graphs))

    def gathered(first: Array, second: Array, k: Array) -> Array:
        return ungrouped(sandwich(grouped(k, axes), first, second), axes, sizes)

    cross = partial(gathered, left, right)
    return remade(
        state,
        replace(
            state,
            nngp=cross(state.nngp),
            ntk=None if state.ntk is None else cross(state.ntk),
            cov1=gathered(left, left, state.cov1),
            cov2=gathered(right, right, state.cov2),
        ),
    )
