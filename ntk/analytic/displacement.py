"""Covariances of one displacement: K[h, w, …, pairs] of position (h, w) of x1 with ((h, w) − d) mod M of x2.

See `ntk.analytic.staging` for why. Entries whose second position does not exist (where M exceeds the number of
positions) hold zeros or the covariance with the last position: finite, never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import product
from operator import add
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ntk.stax.geometry import Axis


@dataclass(frozen=True, slots=True)
class Displacement:
    """shift: d along each axis, known now (int) or when the kernel runs (traced); moduli: M along each axis."""

    shift: tuple[Any, ...]
    moduli: tuple[int, ...]

    def after(self, strides: tuple[int, ...]) -> Displacement:
        """The displacement of the outputs of a layer with these strides."""
        return Displacement(
            tuple(d // s for d, s in zip(self.shift, strides, strict=True)),
            tuple(m // s for m, s in zip(self.moduli, strides, strict=True)),
        )

    @property
    def known(self) -> bool:
        """Whether the shift is known before the kernel runs."""
        return all(isinstance(d, int) for d in self.shift)

    def zero(self) -> Any:
        """Whether the positions are equal."""
        return reduce(lambda a, b: a & b, [d == 0 for d in self.shift])


def doubled(k: Array, moduli: tuple[int, ...]) -> Array:
    """`k` (h, w, …) of x2 for `rolled`: each axis padded to M with its last position, and repeated."""
    for axis, modulus in enumerate(moduli):
        last = lax.slice_in_dim(k, k.shape[axis] - 1, k.shape[axis], axis=axis)
        k = jnp.concatenate([k, *[last] * (modulus - k.shape[axis])] * 2, axis)
    return k


def rolled(twice: Array, sizes: tuple[int, ...], at: Displacement) -> Array:
    """Of `doubled` values of x2 those at (h − d) mod M, for h < size."""
    rank = len(sizes)
    if at.known:
        for axis, (size, d, m) in enumerate(zip(sizes, at.shift, at.moduli, strict=True)):
            twice = lax.slice_in_dim(twice, (m - d) % m, (m - d) % m + size, axis=axis)
        return twice
    start = [m - d for m, d in zip(at.moduli, at.shift, strict=True)]
    zeros = [jnp.zeros((), jnp.result_type(start[0]))] * (twice.ndim - rank)
    return lax.dynamic_slice(twice, [*start, *zeros], (*sizes, *twice.shape[rank:]))


def window_sum(k: Array, axis: int, geometry: Axis, at: Displacement | None) -> Array:
    """Σ_t K[s a − low + t] over the window of one axis, over offsets where both positions lie inside the input; zero
    where the second output position does not exist. `at` None: where the first position is inside."""
    terms = []
    for t in range(geometry.window):
        term = _taken(k, axis, t - geometry.low, geometry)
        inside = None if at is None else _second_inside(k, axis, geometry, at, t)
        terms.append(term if inside is None else term * inside)
    return reduce(add, terms)


def _second_inside(k: Array, axis: int, geometry: Axis, at: Displacement, t: int) -> Array | None:
    """1 for the outputs a whose second position a' exists and whose window's offset t is inside x2, else 0, shaped as
    `k`; None where it is 1 wherever it matters."""
    g, out_modulus = geometry, at.moduli[axis] // geometry.stride
    first = np.arange(g.out)
    all_exist = out_modulus == g.out
    sources = first * g.stride - g.low + t
    always = g.circular or bool(np.all((sources >= 0) & (sources < g.size)))
    if all_exist and always:
        return None
    shift = at.shift[axis]
    xp = np if isinstance(shift, int) else jnp
    second = (xp.asarray(first) - shift // g.stride) % out_modulus
    source = second * g.stride - g.low + t
    inside = second < g.out
    if not g.circular:
        inside = inside & (source >= 0) & (source < g.size)
    if isinstance(shift, int) and np.all(np.asarray(inside) | (sources < 0) | (sources >= g.size)):
        return None
    return jnp.asarray(inside, k.dtype).reshape([-1 if i == axis else 1 for i in range(k.ndim)])


def _taken(k: Array, axis: int, start: int, geometry: Axis) -> Array:
    """k[s a + start] for a < out along `axis`; outside k zero, or around it where circular."""
    stride, out, size = geometry.stride, geometry.out, geometry.size
    if geometry.circular:
        k = jnp.roll(k, -start, axis) if start % size else k
        return lax.slice_in_dim(k, 0, (out - 1) * stride + 1, stride, axis)
    low = min(out, max(0, -(start // stride)))
    high = min(out, (size - 1 - start) // stride + 1) if start < size else 0
    high = max(high, low)
    shape = list(k.shape)

    def zeros(n: int) -> list[Array]:
        shape[axis] = n
        return [jnp.zeros(shape, k.dtype)] if n else []

    if high == low:
        return zeros(out)[0]
    first = low * stride + start
    inside = lax.slice_in_dim(k, first, first + (high - low - 1) * stride + 1, stride, axis)
    parts = [*zeros(low), inside, *zeros(out - high)]
    return jnp.concatenate(parts, axis) if len(parts) > 1 else inside


class Pooling:
    """Sums of a pooling with window = stride s, collected displacement by displacement.

    With d = s q + r and h = s a + t the second position lies in window a − q where t ≥ r, else in a − q − 1: each
    displacement adds to two of the output, q and q + 1, along each axis.

    sizes, moduli: before the pooling; outputs: the displacements wanted after it, per axis.
    """

    def __init__(
        self,
        window: tuple[int, ...],
        sizes: tuple[int, ...],
        moduli: tuple[int, ...],
        outputs: tuple[tuple[int, ...], ...],
    ) -> None:
        self.window = window
        self.sizes = tuple(n // w for n, w in zip(sizes, window, strict=True))
        self.moduli = tuple(m // w for m, w in zip(moduli, window, strict=True))
        self.outputs = outputs

    def zeros(self, pairs: tuple[int, ...], dtype: Any) -> Array:
        """(displacements + 1, …, h, w, …, pairs): the last along each axis takes what nobody wants."""
        return jnp.zeros((*[len(d) + 1 for d in self.outputs], *self.sizes, *pairs), dtype)

    def finished(self, sums: Array) -> Array:
        """(displacements, …, h, w, …, pairs)."""
        return sums[tuple(slice(0, len(d)) for d in self.outputs)]

    def added(self, sums: Array, k: Array, at: Displacement) -> Array:
        """`sums` with the covariances `k` of the displacement `at` added."""
        rank = len(self.window)
        parts: dict[tuple[int, ...], Array] = {(): k}
        for axis in range(rank):
            parts = {
                (*carry, c): part
                for carry, before in parts.items()
                for c, part in enumerate(self._split(before, axis, at))
            }
        for carry in product((0, 1), repeat=rank):
            place = [self._slot(axis, at, c) for axis, c in enumerate(carry)]
            zero = jnp.zeros((), jnp.result_type(place[0]))
            start = [*place, *[zero] * k.ndim]
            here = lax.dynamic_slice(sums, start, (*[1] * rank, *sums.shape[rank:]))
            sums = lax.dynamic_update_slice(sums, here + parts[carry].reshape(here.shape), start)
        return sums

    def _slot(self, axis: int, at: Displacement, carry: int) -> Array:
        wanted = self.outputs[axis]
        table = np.full(self.moduli[axis], len(wanted), np.int32)
        table[list(wanted)] = np.arange(len(wanted))
        return jnp.asarray(table)[(at.shift[axis] // self.window[axis] + carry) % self.moduli[axis]]

    def _split(self, k: Array, axis: int, at: Displacement) -> tuple[Array, Array]:
        """The parts of `k`, summed over windows along `axis`, that belong to output displacements q and q + 1."""
        s, n, m = self.window[axis], self.sizes[axis], self.moduli[axis]
        shape = [-1 if i == axis else 1 for i in range(k.ndim)]
        remainder = at.shift[axis] % s
        stay: list[Array] = []
        move: list[Array] = []
        for t in range(s):
            term = lax.slice_in_dim(k, t, t + (n - 1) * s + 1, s, axis)
            here = jnp.asarray(t >= remainder, k.dtype)
            stay.append(term * here)
            move.append(term * (1 - here))

        def existing(total: Array, carry: int) -> Array:
            if n == m:
                return total
            second = (jnp.arange(n) - at.shift[axis] // s - carry) % m
            return total * (second < n).astype(k.dtype).reshape(shape)

        return existing(reduce(add, stay), 0), existing(reduce(add, move), 1)
