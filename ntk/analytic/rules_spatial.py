"""Propagation through filters and pooling (Novak et al. 2019; Arora et al. 2019)."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import jax.numpy as jnp
from jax import Array

from ntk.analytic.inputs import with_diagonal
from ntk.analytic.mixing import remade
from ntk.analytic.nonlinearity import settled
from ntk.analytic.propagate import propagate
from ntk.analytic.rules_dense import affine
from ntk.analytic.state import Covariance, Residual, diagonal, expand
from ntk.analytic.windows import independent_sum, padded, shared_sum, window_counts
from ntk.errors import ArchitectureError
from ntk.stax.geometry import Axis, axes, transposed_axes
from ntk.stax.spatial import (
    AvgPool,
    Conv,
    ConvLocal,
    ConvTranspose,
    Flatten,
    GlobalAvgPool,
    GlobalSumPool,
    MaxPool,
    SumPool,
)


def _filtered(layer: Any, before: Covariance, inputs: Covariance, geometry: tuple[Axis, ...]) -> Covariance:
    """The state after weights over windows of the padded state `inputs`."""
    size = prod(layer.filter_shape)
    mean = inputs.map(lambda k: shared_sum(k, geometry, inputs.full) / size)
    mean = replace(mean, shape=(*[g.out for g in geometry], before.channels))
    return settled(
        affine(
            before,
            mean,
            layer.W_std,
            layer.b_std,
            layer.parameterization,
            size * before.channels // layer.s[0],
            layer.out_chan * layer.s[1],
        )
    )


@propagate.register
def _(layer: Conv, state: Covariance) -> Covariance:
    geometry = axes(state.spatial, layer.filter_shape, layer.strides, layer.padding)
    return _filtered(layer, state, padded(state, geometry), geometry)


@propagate.register
def _(layer: ConvLocal, state: Covariance) -> Covariance:
    # Independent weights and biases leave no covariance between different positions.
    equal = only_diagonal(state)
    geometry = axes(equal.spatial, layer.filter_shape, layer.strides, layer.padding)
    after = _filtered(layer, equal, padded(equal, geometry), geometry)
    return everywhere(after) if state.full else after


@propagate.register
def _(layer: ConvTranspose, state: Covariance) -> Covariance:
    strides = layer.strides or (1,) * len(layer.filter_shape)
    geometry = transposed_axes(state.spatial, layer.filter_shape, strides, layer.padding)
    return _filtered(layer, state, padded(state, geometry, tuple(s - 1 for s in strides)), geometry)


def only_diagonal(state: Covariance) -> Covariance:
    """The state with covariances of equal positions alone."""
    if not state.full:
        return state
    rank = len(state.spatial)
    return replace(state.map(lambda k: diagonal(k, rank)), full=False)


def everywhere(state: Covariance) -> Covariance:
    """The state in the full layout, with zero covariance between different positions."""
    rank = len(state.spatial)

    def embed(k: Array) -> Array:
        shape = (*[n for n in k.shape[:rank] for _ in range(2)], *k.shape[rank:])
        return with_diagonal(jnp.zeros(shape, k.dtype), k, rank)

    after = replace(state.map(embed), full=True)
    r = state.residual
    if r is None:
        return after
    a, b = expand(state.cov1 / r.scale, rank, 1), expand(state.cov2 * r.scale, rank, 0)
    return replace(
        after,
        residual=Residual(
            r.scale,
            with_diagonal((a + b) + 0 * after.nngp, r.minus, rank),
            with_diagonal((a + b) + 0 * after.nngp, r.plus, rank),
            with_diagonal((a - b) + 0 * after.nngp, r.delta, rank),
        ),
    )


def _pooled(state: Covariance, pool: Any, shape: tuple[int, ...]) -> Covariance:
    """The state after the linear map `pool` of positions."""
    after = replace(
        state,
        nngp=pool(state.nngp),
        ntk=None if state.ntk is None else pool(state.ntk),
        cov1=pool(state.cov1),
        cov2=pool(state.cov2),
        shape=shape,
        full=len(shape) > 1,
    )
    return remade(state, after)


@propagate.register(AvgPool)
@propagate.register(SumPool)
def _(layer: Any, state: Covariance) -> Covariance:
    geometry = axes(state.spatial, layer.window_shape, layer.strides, layer.padding)
    size = float(prod(layer.window_shape)) ** 2 if isinstance(layer, AvgPool) else 1.0
    edges = isinstance(layer, AvgPool) and layer.normalize_edges and layer.padding == "SAME"
    counts = window_counts(geometry, state.nngp.dtype) if edges else []

    def pool(k: Array) -> Array:
        pad = replace(state, nngp=k, ntk=None, cov1=k, cov2=k, residual=None)
        k = independent_sum(padded(pad, geometry).nngp, geometry)
        if not edges:
            return k / size
        for i, count in enumerate(counts):
            for axis in (2 * i, 2 * i + 1):
                k = k / count.reshape([-1 if j == axis else 1 for j in range(k.ndim)])
        return k

    return _pooled(state, pool, (*[g.out for g in geometry], state.channels))


@propagate.register
def _(layer: MaxPool, state: Covariance) -> Covariance:
    raise ArchitectureError("MaxPool has no infinite-width kernel. hint: AvgPool or SumPool")


@propagate.register(GlobalAvgPool)
@propagate.register(GlobalSumPool)
def _(layer: Any, state: Covariance) -> Covariance:
    reduce = jnp.mean if isinstance(layer, GlobalAvgPool) else jnp.sum
    return _pooled(state, lambda k: reduce(k, axis=state.spatial_axes), (state.channels,))


@propagate.register
def _(layer: Flatten, state: Covariance) -> Covariance:
    state = only_diagonal(state)
    after = state.map(lambda k: jnp.mean(k, axis=state.spatial_axes) if state.spatial else k)
    return replace(after, shape=(prod(state.shape),))
