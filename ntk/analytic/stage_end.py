"""What ends a stage of the staged kernel: covariances of many displacements pooled or read out, one after another."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntk.analytic.displacement import Displacement, Pooling
from ntk.analytic.staging import Stage
from ntk.analytic.state import Covariance, Residual
from ntk.stax.spatial import AvgPool, Flatten, GlobalAvgPool


@dataclass(frozen=True, slots=True)
class Between:
    """Covariances between two stages, (displacements, …, h, w, …, pairs), or (pairs,) after the last.

    residual: after Flatten. equal: the pairs that were equal at every position, in exact mode."""

    nngp: Array
    ntk: Array | None
    doubt: Array | None
    residual: Residual | None
    equal: Array | None


class Collector:
    """Sums over the displacements of a stage: of covariances as its end asks, of doubt, and whether pairs are equal."""

    def __init__(self, stage: Stage, later: Stage | None) -> None:
        self.stage = stage
        self.pooling = (
            None
            if later is None
            else Pooling(
                stage.window, stage.sizes_out, stage.moduli_out,
                tuple(later.entering(axis) for axis in range(len(later.sizes))),
            )
        )  # fmt: skip
        rank = len(stage.sizes)
        self.positions = tuple(range(rank))
        self.count = prod(min(len(d), n) for d, n in zip(stage.needed, stage.sizes_out, strict=True))

    def zeros(self, state: Any) -> Any:
        pairs = state.nngp.shape[len(self.positions) :]

        def zero(k: Any) -> Array:
            return jnp.zeros(pairs, k.dtype) if self.pooling is None else self.pooling.zeros(pairs, k.dtype)

        residual = None
        if isinstance(self.stage.end, Flatten) and state.residual is not None:
            residual = jax.tree.map(lambda a: jnp.zeros(pairs, a.dtype), state.residual)
        return (
            zero(state.nngp),
            None if state.ntk is None else zero(state.ntk),
            None if state.doubt is None else jnp.zeros(pairs, state.doubt.dtype),
            None if state.residual is None else jnp.ones(pairs, bool),
            residual,
        )

    def added(self, sums: Any, state: Covariance, at: Displacement) -> Any:
        nngp, ntk, doubt, equal, residual = sums

        def add(total: Array, k: Array) -> Array:
            if self.pooling is not None:
                return self.pooling.added(total, k, at)
            return total + jnp.sum(self._existing(k, at), axis=self.positions)

        if residual is not None:
            assert state.residual is not None
            residual = state.residual.map(lambda a: jnp.mean(a, axis=self.positions))
        r = state.residual
        if r is not None:
            now = jnp.all((r.minus == 0) & (r.delta == 0), axis=self.positions) & (r.scale == 1)
            equal = jnp.where(at.zero(), now, equal)
        return (
            add(nngp, state.nngp),
            None if state.ntk is None else add(ntk, state.ntk),
            None if state.doubt is None else doubt + state.doubt,
            equal,
            residual,
        )

    def _existing(self, k: Array, at: Displacement) -> Array:
        """`k` with zeros where the second position does not exist."""
        if at.known:
            return k
        for axis, (n, m) in enumerate(zip(self.stage.sizes_out, at.moduli, strict=True)):
            if n != m:
                second = (jnp.arange(n) - at.shift[axis]) % m
                k = k * (second < n).astype(k.dtype).reshape([-1 if i == axis else 1 for i in range(k.ndim)])
        return k

    def finished(self, sums: Any, doubt_before: Array | None) -> Between:
        nngp, ntk, doubt, equal, residual = sums
        end = self.stage.end
        if self.pooling is not None:
            divisor = float(prod(self.stage.window)) ** 2 if isinstance(end, AvgPool) else 1.0
        elif isinstance(end, Flatten):
            divisor = float(prod(self.stage.sizes_out))
        else:
            divisor = float(prod(self.stage.sizes_out)) ** 2 if isinstance(end, GlobalAvgPool) else 1.0

        def whole(k: Array) -> Array:
            k = k if self.pooling is None else self.pooling.finished(k)
            return k if divisor == 1 else k * (1 / divisor)

        if doubt is not None:
            doubt = doubt / self.count + (0 if doubt_before is None else doubt_before)
        return Between(whole(nngp), None if ntk is None else whole(ntk), doubt, residual, equal)
