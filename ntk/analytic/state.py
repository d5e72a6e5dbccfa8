"""What is known about pairs of inputs at one layer of an infinitely wide network.

Axes: spatial axes first, pair axes last, so that the longest contiguous axis is the one that every rule is
elementwise in.

* vectors: no spatial axes;
* ``diagonal``: (\\*spatial, pairs): covariances of equal positions only;
* ``full``: (h, h', w, w', …, pairs): covariances of position (h, w, …) of x1 with position (h', w', …) of x2.

Pairs come in two modes. ``outer``: every row of x1 with every row of x2, pair axes (n1, n2), and cov1, cov2 with pair
axes (n1, 1), (1, n2). ``paired``: row i of x1 with row i of x2, one pair axis, and exact residuals carried along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


@partial(jax.tree_util.register_dataclass, data_fields=["scale", "minus", "plus", "delta"], meta_fields=[])
@dataclass(frozen=True, slots=True)
class Residual:
    """Second moments of u/√c − √c v and u/√c + √c v for pre-activations (u, v) of a pair, c = `scale` fixed per pair.

    minus = E(u/√c − √c v)², plus = E(u/√c + √c v)², delta = E u²/c − c E v². They vanish where inputs are equal,
    collinear or antipodal (for c = |x1|/|x2|), they pass through linear layers linearly, and give the determinant
    without cancellation: E u² E v² − (E uv)² = (minus · plus − delta²)/4.
    """

    scale: Array
    minus: Array
    plus: Array
    delta: Array

    def map(self, f: Callable[[Array], Array]) -> Residual:
        return Residual(self.scale, f(self.minus), f(self.plus), f(self.delta))

    def add_constant(self, b2: float | Array) -> Residual:
        """After adding the same independent variable of variance b2 to u and v."""
        r = jnp.sqrt(self.scale)
        return Residual(
            self.scale,
            self.minus + b2 * (1 / r - r) ** 2,
            self.plus + b2 * (1 / r + r) ** 2,
            self.delta + b2 * (1 / self.scale - self.scale),
        )


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["nngp", "ntk", "cov1", "cov2", "residual", "doubt", "graphs"],
    meta_fields=["shape", "full", "outer", "itself", "wants_ntk"],
)
@dataclass(frozen=True, slots=True)
class Covariance:
    """The state that rules propagate.

    nngp: E[u v] for the pairs. ntk: the tangent kernel, None where it is zero (before any weights) or was not asked.
    cov1, cov2: E[u u'] of x1 with itself and of x2 with itself, in the layout of nngp.
    residual: see `Residual`; paired mode only. doubt: per pair, the share of positions with a nearly singular angle
    (`ntk.analytic.dual.angle`), summed over the layers so far; for inputs without positions simply whether there was
    one; None when nobody asked. shape: (\\*spatial, channels) of the signal; full: the spatial layout. itself:
    whether the pairs are each input with itself (it matters where a layer draws at random). graphs: the patterns of
    Aggregate for x1 and x2, the rows first; None without.
    """

    nngp: Array
    ntk: Array | None
    cov1: Array
    cov2: Array
    residual: Residual | None
    doubt: Array | None
    shape: tuple[int, ...]
    full: bool
    outer: bool
    itself: bool
    wants_ntk: bool
    graphs: tuple[Array, Array] | None = None

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[:-1]

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The leading axes of nngp that are positions."""
        return tuple(range(len(self.spatial) * (2 if self.full else 1)))

    def map(self, f: Callable[[Array], Array]) -> Covariance:
        """The state after a linear map of the network that acts on every covariance array as `f`."""
        return replace(
            self,
            nngp=f(self.nngp),
            ntk=None if self.ntk is None else f(self.ntk),
            cov1=f(self.cov1),
            cov2=f(self.cov2),
            residual=None if self.residual is None else self.residual.map(f),
        )

    def add_constant(self, b2: float | Array) -> Covariance:
        """The state after adding an independent N(0, b2) bias, shared by all positions, to every channel."""
        return replace(
            self,
            nngp=self.nngp + b2,
            cov1=self.cov1 + b2,
            cov2=self.cov2 + b2,
            residual=None if self.residual is None else self.residual.add_constant(b2),
        )

    def variances(self) -> tuple[Array, Array]:
        """E u² and E v², broadcastable against nngp."""
        if not self.full:
            return self.cov1, self.cov2
        rank = len(self.spatial)
        return (expand(diagonal(self.cov1, rank), rank, 1), expand(diagonal(self.cov2, rank), rank, 0))

    def doubting(self, nearly_singular: Array) -> Array | None:
        """`doubt` with the share of positions where `nearly_singular` (boolean, like nngp) added."""
        if self.doubt is None:
            return None
        if self.doubt.dtype == bool:
            return self.doubt | nearly_singular
        share = nearly_singular.astype(self.doubt.dtype)
        return self.doubt + (jnp.mean(share, axis=self.spatial_axes) if self.spatial else share)


def diagonal(full: Array, rank: int) -> Array:
    """(h, h', w, w', …, pairs) → (h, w, …, pairs): equal positions."""
    for axis in range(rank):
        full = jnp.moveaxis(jnp.diagonal(full, axis1=axis, axis2=axis + 1), -1, axis)
    return full


def expand(by_position: Array, rank: int, side: int) -> Array:
    """(h, w, …, pairs) → (h, 1, w, 1, …, pairs) for side 1, (1, h, 1, w, …, pairs) for side 0."""
    return jnp.expand_dims(by_position, tuple(2 * axis + side for axis in range(rank)))
