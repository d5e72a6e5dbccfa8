"""What becomes of the axes of a network's output in its kernels: `trace_axes` and `diagonal_axes`.

An axis of size o of f(x1) and f(x2) is *free* by default and gives two axes (o1, o2) of the kernel, side by side; a
*diagonal* axis gives one, (o,), of which only equal indices are computed; a *trace* axis gives none: its equal indices
are averaged. So f of shape (n, 10) has a kernel (n1, n2, 10, 10), (n1, n2, 10) or (n1, n2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from ntk.arrays import axis_numbers


class Kind(Enum):
    """What an output axis becomes: two kernel axes, one, or none."""

    FREE = 2
    DIAGONAL = 1
    TRACE = 0


def canonical(axes: int | Iterable[int], ndim: int, name: str) -> tuple[int, ...]:
    """Axes counted from the front. Raises ValueError for one that an output of `ndim` axes lacks, or twice the same."""
    wanted = axis_numbers(axes, name)
    for axis in wanted:
        if not -ndim <= axis < ndim:
            raise ValueError(f"{name}: the output has {ndim} axes, got axis {axis}")
    found = tuple(axis % ndim for axis in wanted)
    if len(set(found)) < len(found):
        raise ValueError(f"{name} names an axis twice: {wanted}")
    return found


@dataclass(frozen=True)
class KernelAxes:
    """The kinds of the axes of one output, in its own order, and which of them numbers the examples (None: none)."""

    kinds: tuple[Kind, ...]
    batch: int | None = None

    @classmethod
    def read(
        cls,
        ndim: int,
        trace_axes: int | Sequence[int],
        diagonal_axes: int | Sequence[int],
        batch: int | None = None,
    ) -> KernelAxes:
        """From the arguments of a user. Raises ValueError for axes that the output lacks or that are named twice."""
        trace = canonical(trace_axes, ndim, "trace_axes")
        diagonal = canonical(diagonal_axes, ndim, "diagonal_axes")
        if both := set(trace) & set(diagonal):
            raise ValueError(f"trace_axes and diagonal_axes both name the output axis {min(both)}")
        kinds = tuple(
            Kind.TRACE if i in trace else Kind.DIAGONAL if i in diagonal else Kind.FREE for i in range(ndim)
        )
        return cls(kinds, batch)

    def check(self, shape1: Sequence[int], shape2: Sequence[int]) -> None:
        """Raise ValueError for outputs f(x1) and f(x2) whose axes cannot be paired as they should."""
        for axis, (kind, n1, n2) in enumerate(zip(self.kinds, shape1, shape2, strict=True)):
            if kind is not Kind.FREE and n1 != n2:
                raise ValueError(
                    f"{kind.name.lower()}_axes pair the entries of f(x1) and f(x2) along axis {axis}, which must be as "
                    f"many, got {n1} and {n2}"
                )

    @property
    def paired(self) -> bool:
        """Whether only example i with example i is wanted."""
        return self.batch is not None and self.kinds[self.batch] is not Kind.FREE

    @property
    def tail(self) -> tuple[Kind, ...]:
        """The kinds of the axes of the output of one example."""
        return tuple(kind for i, kind in enumerate(self.kinds) if i != self.batch)

    @property
    def lead(self) -> int:
        """How many axes number the examples in `contract`'s result."""
        return 1 if self.paired else 2

    def entries(self, shape: Sequence[int]) -> tuple[int, int]:
        """Kernel entries kept, and products summed, per pair of examples with outputs of the shape `shape`."""
        sizes = list(zip(self.tail, shape, strict=True))
        kept = math.prod(size**kind.value for kind, size in sizes)
        return kept, kept * math.prod(size for kind, size in sizes if kind is Kind.TRACE)

    def contract(self, first: Array, second: Array) -> Array:
        """Sum over features (and trace axes) of first (n1, \\*tail, features) times second (n2, \\*tail, features).

        Returns (n1, n2, \\*kernel axes of the tail), or (n, \\*tail) when `paired`. A sum, not yet an average.
        """
        first, second = self._traces_last(first), self._traces_last(second)
        kept = [kind for kind in self.tail if kind is not Kind.TRACE]
        ndim = 1 + len(kept)
        left = list(range(ndim))
        right = [0 if self.paired else ndim]
        out = [0] if self.paired else [0, ndim]
        for axis, kind in enumerate(kept, 1):
            right.append(ndim + axis if kind is Kind.FREE else axis)
            out += [axis, ndim + axis] if kind is Kind.FREE else [axis]
        feature = 2 * ndim
        return jnp.einsum(
            first, [*left, feature], second, [*right, feature], out, precision=lax.Precision.HIGHEST
        )

    def _traces_last(self, values: Array) -> Array:
        """(n, \\*tail, features) with the trace axes among the features: one contracted axis makes a plain product."""
        kept = [axis for axis, kind in enumerate(self.tail, 1) if kind is not Kind.TRACE]
        traced = [axis for axis, kind in enumerate(self.tail, 1) if kind is Kind.TRACE]
        moved = values.transpose(0, *kept, *traced, values.ndim - 1)
        return moved.reshape(*moved.shape[: 1 + len(kept)], math.prod(moved.shape[1 + len(kept) :]))

    def reduce(self, full: Array) -> Array:
        """What `contract` gives, from all entries: (n1, n2, \\*tail, \\*tail), or (n, \\*tail, \\*tail) if paired."""
        lead, count = self.lead, len(self.tail)
        left = [lead + i for i in range(count)]
        right, out = [], list(range(lead))
        for axis, kind in zip(left, self.tail, strict=True):
            right.append(axis + count if kind is Kind.FREE else axis)
            out += {Kind.FREE: [axis, axis + count], Kind.DIAGONAL: [axis], Kind.TRACE: []}[kind]
        return jnp.einsum(full, [*range(lead), *left, *right], out)

    def finish(self, kernel: Array, shape: Sequence[int]) -> Array:
        """The kernel as users see it, from `contract`'s result and the shape of f(x1): averaged, axes in order."""
        kernel = kernel / math.prod(
            size for kind, size in zip(self.kinds, shape, strict=True) if kind is Kind.TRACE
        )
        if self.batch is None:
            return kernel[0, 0]
        if self.kinds[self.batch] is Kind.TRACE:
            return kernel.sum(axis=0)
        place = sum(kind.value for kind in self.kinds[: self.batch])
        return jnp.moveaxis(kernel, range(self.lead), range(place, place + self.lead))

    def mirrored(self, kernel: Any) -> Any:
        """The kernel of (x2, x1) from the kernel of (x1, x2), NumPy or JAX, axes as users see them."""
        order: list[int] = []
        for kind in self.kinds:
            here = len(order)
            order += [here + 1, here] if kind is Kind.FREE else [here] * kind.value
        return kernel.transpose(order)

    @property
    def inner(self) -> KernelAxes:
        """The same with the examples leading, as `contract` returns them, for `mirrored`."""
        lead = Kind.DIAGONAL if self.paired else Kind.FREE
        return KernelAxes((lead, *self.tail), 0)
