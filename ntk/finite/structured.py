"""The empirical kernel without derivatives of the size of weight matrices.

A layer y = s a W, a vector a per example, adds s² (a · a')(δ · δ') to the kernel, with δ = ∂f/∂y from one backward
pass. Other parameters (biases, convolutions, weights used at several positions or twice) contribute the product of
their Jacobians, as in `ntk.finite.jacobians`.
Novak, Sohl-Dickstein & Schoenholz 2022, "Fast finite width neural tangent kernel", section 3.3 and table 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from ntk.finite.axes import KernelAxes
from ntk.finite.examples import Examples
from ntk.finite.jacobians import flat, sum_of
from ntk.finite.tiling import Block, tiled
from ntk.finite.weights import Path, Product, evaluate, find

#: Rows of the smallest blocks of a symmetric kernel: smaller matrix products are slower than what they save.
_SMALLEST = 256


@dataclass(frozen=True)
class Plan:
    """The programs of both sides of a kernel and, in each, the products that are treated by structure."""

    program1: Any
    program2: Any
    products1: dict[Path, Product]
    products2: dict[Path, Product]

    @property
    def leaves(self) -> list[int]:
        return sorted(product.leaf for product in self.products1.values())


class Features(NamedTuple):
    """Per row: vectors {leaf: (n, inputs)}, and per output array the backward signals {leaf: (n, \\*tail, units)} and
    Jacobians [(n, \\*tail, \\*shape)]."""

    vectors: dict[int, Array]
    signals: list[dict[int, Array]]
    jacobians: list[list[Array]]


def program(examples: Examples, params: Any) -> Any:
    """The ClosedJaxpr of the network on one example: parameter arrays, then the row, to its output arrays."""
    leaves, structure = jax.tree.flatten(params)

    def network(leaves: list[Array], row: list[Array]) -> list[Array]:
        return examples.single(jax.tree.unflatten(structure, leaves), row)

    return jax.make_jaxpr(network)([jax.ShapeDtypeStruct(p.shape, p.dtype) for p in leaves], examples.row())


def plan(params: Any, program1: Any, program2: Any) -> Plan:
    """The weights that both sides multiply a vector by."""
    count = len(jax.tree.leaves(params))
    found = [find(program1, count), find(program2, count)]
    both = set.intersection(*({use.leaf for use in uses.values()} for uses in found))
    return Plan(
        program1, program2, *({path: use for path, use in uses.items() if use.leaf in both} for uses in found)
    )


def features(params: Any, run: Any, products: dict[Path, Product], rows: list[Array]) -> Features:
    """What the kernel needs to know about every row."""
    leaves = jax.tree.leaves(params)
    structured = {use.leaf for use in products.values()}
    others = [i for i in range(len(leaves)) if i not in structured]
    zeros = {path: jnp.zeros(use.shape, leaves[use.leaf].dtype) for path, use in products.items()}

    def one(row: list[Array]) -> tuple[tuple[Any, Any], dict[Path, Array]]:
        def outputs(probes: dict[Path, Array], rest: list[Array]) -> tuple[list[Array], dict[Path, Array]]:
            full = dict(enumerate(leaves)) | dict(zip(others, rest, strict=True))
            return evaluate(run, products, probes, [*(full[i] for i in range(len(leaves))), *row])

        slopes, vectors = jax.jacrev(lambda both: outputs(*both), has_aux=True)(
            (zeros, [leaves[i] for i in others])
        )
        return ([s[0] for s in slopes], [s[1] for s in slopes]), vectors

    (signals, jacobians), vectors = jax.vmap(one)(rows)
    scaled = [{use.leaf: use.scale * signal[path] for path, use in products.items()} for signal in signals]
    return Features({use.leaf: vectors[path] for path, use in products.items()}, scaled, jacobians)


def block(params: Any, axes: list[KernelAxes], weights: Plan) -> Block:
    """Kernels of a block of rows of one side with rows of the other."""

    def contract(first: Features, second: Features) -> list[Array]:
        return [_kernel(a, i, first, second) for i, a in enumerate(axes)]

    def kernels(rows1: list[Array], rows2: list[Array] | None) -> list[Array]:
        first = features(params, weights.program1, weights.products1, rows1)
        if rows2 is not None:
            return contract(first, features(params, weights.program2, weights.products2, rows2))
        # With themselves, large enough batches are contracted above the diagonal alone.
        leaves, structure = jax.tree.flatten(first)
        size = max(_SMALLEST, -(-len(leaves[0]) // 8))
        return tiled(
            lambda a, b: contract(*(jax.tree.unflatten(structure, part) for part in (a, b or a))),
            leaves,
            None,
            size,
            axes,
        )

    return kernels


def _kernel(axes: KernelAxes, output: int, first: Features, second: Features) -> Array:
    tail = len(axes.tail)
    examples = KernelAxes(axes.inner.kinds[:1], 0)
    terms = []
    for leaf in first.vectors:
        signals = axes.contract(
            flat(first.signals[output][leaf], tail), flat(second.signals[output][leaf], tail)
        )
        products = examples.contract(first.vectors[leaf], second.vectors[leaf])
        terms.append(signals * products.reshape(*products.shape, *[1] * (signals.ndim - products.ndim)))
    terms += [
        axes.contract(flat(j1, tail), flat(j2, tail))
        for j1, j2 in zip(first.jacobians[output], second.jacobians[output], strict=True)
    ]
    return sum_of(terms)


def sizes(params: Any, weights: Plan) -> tuple[int, int, int]:
    """(units, vector entries) summed over the structured weights, and the entries of all other parameters."""
    leaves = jax.tree.leaves(params)
    units = sum(math.prod(use.shape) for use in weights.products1.values())
    inputs = sum(leaves[use.leaf].size // math.prod(use.shape) for use in weights.products1.values())
    structured = set(weights.leaves)
    return units, inputs, sum(leaf.size for i, leaf in enumerate(leaves) if i not in structured)
