"""The empirical kernel as the product of two Jacobians: Θ = J(x1) J(x2)ᵀ.

Novak, Sohl-Dickstein & Schoenholz 2022, "Fast finite width neural tangent kernel", section 3.1.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from ntk.finite.axes import KernelAxes
from ntk.finite.examples import Examples
from ntk.finite.tiling import Block


def flat(jacobian: Array, tail: int) -> Array:
    """(n, \\*outputs, \\*parameter shape) with the parameter's axes made one."""
    return jacobian.reshape(*jacobian.shape[: 1 + tail], -1)


def block(params: Any, one: Examples, two: Examples, axes: list[KernelAxes]) -> Block:
    """Kernels of a block of rows of `one` with rows of `two`."""

    def jacobians(examples: Examples, rows: list[Array]) -> list[list[Array]]:
        per_output = jax.vmap(lambda row: jax.jacrev(lambda p: examples.single(p, row))(params))(rows)
        return [jax.tree.leaves(tree) for tree in per_output]

    def kernels(rows1: list[Array], rows2: list[Array] | None) -> list[Array]:
        first = jacobians(one, rows1)
        second = first if rows2 is None else jacobians(two, rows2)
        return [
            sum_of(
                [
                    a.contract(flat(j1, len(a.tail)), flat(j2, len(a.tail)))
                    for j1, j2 in zip(js1, js2, strict=True)
                ]
            )
            for a, js1, js2 in zip(axes, first, second, strict=True)
        ]

    return kernels


def sum_of(terms: list[Array]) -> Array:
    """The sum of a non-empty list, in its order."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
