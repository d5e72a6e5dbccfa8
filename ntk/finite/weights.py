"""Where a program multiplies a vector by a matrix of weights.

For y = a W with a vector a the derivative of an output along W is the outer product of a and δ = ∂f/∂y, so that the
contribution of W to the kernel of two examples is (a · a')(δ · δ'): no derivative of the size of W is ever formed.
`find` recognises such products in the jaxpr of a function, `evaluate` runs the jaxpr, adding a given array (zero, to
be differentiated) to every y and keeping every a.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jax import Array
from jax.extend import core

Path = tuple[int, ...]


@dataclass(frozen=True)
class Product:
    """One product of a vector with `scale` times the weights of parameter array `leaf`, at the equation `path`."""

    leaf: int
    scale: float
    path: Path
    vector: int
    """Which operand of the equation is the vector."""
    shape: tuple[int, ...]
    """Shape of the product."""


@dataclass(frozen=True)
class _Weights:
    """A value that is `scale` times the entries of a parameter array, in any order."""

    leaf: int
    scale: float


def find(program: Any, leaves: int) -> dict[Path, Product]:
    """The products in a ClosedJaxpr whose first `leaves` arguments are the parameter arrays.

    Only of arrays that are used once and for nothing else: the derivative along any other array is a sum over its
    uses, which is left to automatic differentiation.
    """
    jaxpr = program.jaxpr
    uses: list[tuple[int, Product | None]] = []
    known = {var: _Weights(i, 1.0) for i, var in enumerate(jaxpr.invars[:leaves])}
    for weights in _scan(jaxpr, known, (), uses):
        if weights is not None:
            uses.append((weights.leaf, None))
    counts = [sum(leaf == i for leaf, _ in uses) for i in range(leaves)]
    return {use.path: use for leaf, use in uses if use is not None and counts[leaf] == 1}


def _scan(
    jaxpr: Any, known: dict[Any, _Weights], path: Path, uses: list[tuple[int, Product | None]]
) -> list[_Weights | None]:
    """Record in `uses` what becomes of the weights in `known`; returns which outputs are still weights."""

    def weights(atom: Any) -> _Weights | None:
        return None if isinstance(atom, core.Literal) else known.get(atom)

    for i, eqn in enumerate(jaxpr.eqns):
        operands = [weights(atom) for atom in eqn.invars]
        if not any(operands):
            continue
        here = (*path, i)
        inner = _inlined(eqn)
        if inner is not None:
            entering = {var: w for var, w in zip(inner.jaxpr.invars, operands, strict=True) if w is not None}
            for var, w in zip(eqn.outvars, _scan(inner.jaxpr, entering, here, uses), strict=True):
                if w is not None:
                    known[var] = w
            continue
        moved = _rescaled(eqn, operands)
        if moved is not None:
            known[eqn.outvars[0]] = moved
            continue
        product = _product(eqn, operands, here)
        uses.extend((w.leaf, product) for w in operands if w is not None)
    return [weights(atom) for atom in jaxpr.outvars]


def _inlined(eqn: Any) -> Any:
    """The program of an equation that only calls it."""
    return eqn.params["jaxpr"] if eqn.primitive.name in ("jit", "pjit") else None


def _rescaled(eqn: Any, operands: Sequence[_Weights | None]) -> _Weights | None:
    """The weights after an equation that permutes or scales all of them, None if it does anything else."""
    name, first = eqn.primitive.name, operands[0]
    if name in ("mul", "div") and (first is None or operands[1] is None):
        weights, factor = (operands[1], eqn.invars[0]) if first is None else (first, eqn.invars[1])
        if weights is None or not isinstance(factor, core.Literal) or (name == "div" and first is None):
            return None
        value = float(factor.val)
        return _Weights(weights.leaf, weights.scale * value if name == "mul" else weights.scale / value)
    if first is None:
        return None
    if name == "neg":
        return _Weights(first.leaf, -first.scale)
    if name in ("transpose", "reshape", "squeeze", "broadcast_in_dim", "copy") and (
        math.prod(eqn.outvars[0].aval.shape) == math.prod(eqn.invars[0].aval.shape)
    ):
        return first
    return None


def _product(eqn: Any, operands: Sequence[_Weights | None], path: Path) -> Product | None:
    if eqn.primitive.name != "dot_general" or all(operands):
        return None
    side = 0 if operands[0] is None else 1
    contracted, batched = eqn.params["dimension_numbers"]
    vector, weights = eqn.invars[side].aval, operands[1 - side]
    free = math.prod(n for i, n in enumerate(vector.shape) if i not in contracted[side])
    whole = vector.dtype == eqn.invars[1 - side].aval.dtype == eqn.outvars[0].aval.dtype
    if batched[0] or free != 1 or weights is None or not whole:
        return None
    return Product(weights.leaf, weights.scale, path, side, eqn.outvars[0].aval.shape)


def _bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    # A pair of functions and parameters up to JAX 0.11, the parameters alone since.
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ((), bound)
    results = eqn.primitive.bind(*functions, *operands, **params)
    return results if eqn.primitive.multiple_results else [results]


def evaluate(
    program: Any, products: dict[Path, Product], probes: dict[Path, Array], args: Sequence[Any]
) -> tuple[list[Any], dict[Path, Array]]:
    """The outputs of a ClosedJaxpr with `probes` added to the results of `products`, and their vectors, flat."""
    vectors: dict[Path, Array] = {}

    def run(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], path: Path) -> list[Any]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        for i, eqn in enumerate(jaxpr.eqns):
            here = (*path, i)
            operands = [read(atom) for atom in eqn.invars]
            inner = _inlined(eqn)
            if inner is not None and any(p[: len(here)] == here for p in products):
                results = run(inner.jaxpr, inner.consts, operands, here)
            else:
                results = _bind(eqn, operands)
            if here in products:
                vectors[here] = operands[products[here].vector].reshape(-1)
                results = [results[0] + probes[here]]
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    return run(program.jaxpr, program.consts, args, ()), vectors
