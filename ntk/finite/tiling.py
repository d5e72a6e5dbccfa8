"""Kernels of many pairs of examples in bounded memory: blocks of rows, the upper triangle alone where symmetric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.finite.axes import KernelAxes

#: Bytes that the temporaries of one block may take.
BUDGET = 2**30

Rows = list[Array]
Block = Callable[[Rows, Rows | None], list[Array]]


def rows_within(row_bytes: float, pair_bytes: float, budget: int = BUDGET) -> int:
    """The largest block (a power of two) whose rows, two sides of them, and pairs fit the budget; at least 1."""
    by_rows = budget / (2 * max(row_bytes, 1))
    by_pairs = math.sqrt(budget / max(pair_bytes, 1))
    return 2 ** max(0, int(math.log2(max(1, min(by_rows, by_pairs)))))


def tiled(
    block: Block, rows1: Rows, rows2: Rows | None, size: int, axes: Sequence[KernelAxes]
) -> list[Array]:
    """`block(rows1, rows2)` in blocks of at most `size` rows of each.

    block: gives, for n1 and n2 rows, arrays (n1, n2, ...), one for each of `axes`, or (n, ...) of row i with row i
    where the axes are paired; its second argument is None for rows with themselves. Blocks at an edge overlap their
    neighbours and repeat the same values, so that all have one shape.
    """
    n1, n2 = len(rows1[0]), len((rows2 or rows1)[0])
    if max(n1, n2) <= size:
        return block(rows1, rows2)
    b1, b2 = min(size, n1), min(size, n2)
    paired = axes[0].paired
    shapes = jax.eval_shape(block, [r[:b1] for r in rows1], [r[:b2] for r in (rows2 or rows1)])
    totals = [jnp.zeros((n1, *s.shape[1:]) if paired else (n1, n2, *s.shape[2:]), s.dtype) for s in shapes]
    starts = [(min(i, n1 - b1), min(j, n2 - b2)) for i in range(0, n1, b1) for j in range(0, n2, b2)]
    on_diagonal = [corner for corner in starts if corner[0] == corner[1]]
    if paired or rows2 is None:
        totals = _each(
            on_diagonal,
            totals,
            lambda i, j: block(_take(rows1, i, b1), None if rows2 is None else _take(rows2, i, b2)),
            1 if paired else 2,
        )
    if paired:
        return totals
    if rows2 is not None:
        return _each(starts, totals, lambda i, j: block(_take(rows1, i, b1), _take(rows2, j, b2)), 2)
    above = [(i, j) for i, j in starts if i < j]
    totals = _each(above, totals, lambda i, j: block(_take(rows1, i, b1), _take(rows1, j, b1)), 2)
    return [_mirrored(total, a, above, b1) for total, a in zip(totals, axes, strict=True)]


def _take(rows: Rows, start: Array, count: int) -> Rows:
    return [lax.dynamic_slice_in_dim(r, start, count) for r in rows]


def _write(total: Array, part: Array, corner: tuple[Array, ...]) -> Array:
    return lax.dynamic_update_slice(
        total, part, (*corner, *[jnp.zeros((), jnp.int32)] * (total.ndim - len(corner)))
    )


def _each(
    starts: list[tuple[int, int]],
    totals: list[Array],
    block: Callable[[Array, Array], list[Array]],
    lead: int,
) -> list[Array]:
    """`totals` with the blocks at `starts` written in, whose corners are their first `lead` coordinates."""
    corners = jnp.asarray(np.asarray(starts, np.int32).reshape(-1, 2))

    def step(k: Array, totals: list[Array]) -> list[Array]:
        corner = corners[k, 0], corners[k, 1]
        return [_write(t, p, corner[:lead]) for t, p in zip(totals, block(*corner), strict=True)]

    return lax.fori_loop(0, len(starts), step, totals)


def _mirrored(total: Array, axes: KernelAxes, above: list[tuple[int, int]], size: int) -> Array:
    """`total` with the blocks below the diagonal copied from those above."""
    corners = jnp.asarray(np.asarray(above, np.int32).reshape(-1, 2))

    def step(k: Array, total: Array) -> Array:
        i, j = corners[k, 0], corners[k, 1]
        part = lax.dynamic_slice_in_dim(lax.dynamic_slice_in_dim(total, i, size, 0), j, size, 1)
        return _write(total, axes.inner.mirrored(part), (j, i))

    return lax.fori_loop(0, len(above), step, total)
