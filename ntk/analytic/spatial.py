"""The staged kernel on whole tiles: blocks of pairs that fit a cache, and only those that are wanted."""

from __future__ import annotations

from functools import cache, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.analytic import displaced
from ntk.analytic.displaced import Rows
from ntk.analytic.footprint import EXACT_SLICES, Block, block, fused_block, rows_at_once
from ntk.analytic.kernel import read_out
from ntk.analytic.staging import Staged
from ntk.device import compiled


def device() -> str:
    """The kind of device that blocks are cut for."""
    return "cpu" if jax.default_backend() == "cpu" else "accelerator"


@cache
def fused(staged: Staged) -> bool:
    """Whether the stages run as GPU kernels of their own: on the NVIDIA devices that they are written for, where JAX
    still has Pallas's Triton backend."""
    here = jax.devices()[0]
    if here.platform != "gpu" or float(getattr(here, "compute_capability", None) or 0) < 8:
        return False
    try:
        from ntk.analytic.pallas_displacement import suits
    except ImportError:
        return False
    return suits(staged)


def wanted(size: Block, n1: int, n2: int, symmetric: bool) -> np.ndarray:
    """Corners (first row, first column) of the blocks that hold an entry of n1 × n2 (symmetric: i ≤ j), (count, 2)."""
    corners = [
        (i, j)
        for i in range(0, n1, size.b1)
        for j in range(0, n2, size.b2)
        if not symmetric or i < j + size.b2
    ]
    return np.asarray(corners, np.int32).reshape(-1, 2)


@lru_cache(maxsize=256)
def outer(staged: Staged, names: tuple[str, ...], size: Block, grain: int, limit: float) -> Any:
    """``f(x1, x2, corners, count)``: the kernels by name, (n1, n2), in the first `count` blocks of `corners`, NaN where
    the doubt exceeds `limit`, zero in other blocks; n1 and n2 are multiples of `grain`, and that of a block's sides.
    One compiled kernel serves full, cropped and symmetric tiles."""

    if fused(staged):
        from ntk.analytic.pallas_displacement import outer as between
    else:
        between = partial(displaced.outer, doubting=True)

    def run(x1: Array, x2: Array, corners: Array, count: Array) -> dict[str, Array]:
        first, second = _rows(staged, x1, grain), _rows(staged, x2, grain)

        def one(k: Array, values: dict[str, Array]) -> dict[str, Array]:
            i, j = corners[k, 0], corners[k, 1]
            rows = _some(first, i, size.b1), _some(second, j, size.b2)
            state = between(staged, *rows, wants_ntk="ntk" in names)
            assert state.doubt is not None
            found = {
                name: jnp.where(state.doubt > limit, jnp.nan, k) for name, k in read_out(state, names).items()
            }
            return {name: lax.dynamic_update_slice(values[name], found[name], (i, j)) for name in names}

        empty = jnp.zeros((x1.shape[0], x2.shape[0]), x1.dtype)
        return lax.fori_loop(0, count, one, {name: empty for name in names})

    return compiled(run)


def _rows(staged: Staged, x: Array, grain: int) -> Rows:
    """`displaced.variances`, some rows at a time: always as many, for their values depend on it in the last bit."""
    n, size = x.shape[0], rows_at_once(staged, x.dtype.itemsize, grain, device=device())

    def part(x: Array) -> Rows:
        # Settled: a loop over a single part is none to XLA, which would fuse it with what stands around it.
        return lax.optimization_barrier(displaced.variances(staged, lax.optimization_barrier(x)))

    parts = lax.map(part, x.reshape(-1, size, *x.shape[1:]))
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, -2).reshape(*a.shape[1:-1], n), parts)


def _some(rows: Rows, start: Array, count: int) -> Rows:
    # Settled: the loop over displacements must not slice anew at each step.
    return lax.optimization_barrier(
        jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, count, axis=a.ndim - 1), rows)
    )


@lru_cache(maxsize=256)
def paired(staged: Staged, names: tuple[str, ...], itself: bool) -> Any:
    """``f((x1,), (x2,))``: the kernels of row i of x1 with row i of x2, (n,), exact."""

    def run(side1: tuple[Array, ...], side2: tuple[Array, ...]) -> dict[str, Array]:
        x1, x2 = side1[0], side2[0]
        first = displaced.variances(staged, x1)
        second = first if itself else displaced.variances(staged, x2)
        return read_out(
            displaced.paired(staged, first, second, wants_ntk="ntk" in names, itself=itself), names
        )

    return compiled(run)


def pairs_at_once(staged: Staged, most: int) -> int:
    """Pairs per call of `paired`, `most` or less."""
    return rows_at_once(staged, 8, most, EXACT_SLICES, device())


def block_of(staged: Staged, itemsize: int, tile: int) -> Block:
    """The block for this process's device."""
    if not fused(staged):
        return block(staged, itemsize, tile, device())
    from ntk.analytic.pallas_program import LANES

    memory = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 2**33)
    return fused_block(staged, itemsize, tile, LANES, memory)
