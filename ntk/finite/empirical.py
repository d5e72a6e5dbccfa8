"""Kernels of a network of finite width at given parameters: NNGP f(x1) f(x2)ᵀ and NTK J(x1) J(x2)ᵀ.

The functions take any JAX function ``f(params, x, **kwargs)``; names and arguments are those of `neural_tangents`.
Results are computed in the precision of parameters and inputs, products of Jacobians at the highest precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ntk.analytic.results import asked, chosen
from ntk.arrays import function
from ntk.finite import jacobians, structured, vector_products
from ntk.finite.axes import KernelAxes
from ntk.finite.examples import Examples, checked, read_vmap_axes, split_examples, traced_and_fixed, two_sided
from ntk.finite.tiling import Block, rows_within, tiled
from ntk.finite.work import Work, work
from ntk.stax.layer import Layer

Axes = int | Sequence[int]


class NtkImplementation(IntEnum):
    """How to compute an empirical NTK; all give the same kernel.

    AUTO: structured derivatives or NTK-vector products, whichever takes fewer flops (counted before any work).
    JACOBIAN_CONTRACTION: the product of two Jacobians, block by block. Plainest.
    NTK_VECTOR_PRODUCTS: one NTK-vector product per example and output; for large outputs (`trace_axes=()`) of networks
    whose forward pass is cheap for their number of parameters.
    STRUCTURED_DERIVATIVES: weight matrices that multiply one vector per example contribute by the vectors and the
    backward signals alone; all other parameters as in JACOBIAN_CONTRACTION. Needs `vmap_axes` to be of use.
    """

    AUTO = 0
    JACOBIAN_CONTRACTION = 1
    NTK_VECTOR_PRODUCTS = 2
    STRUCTURED_DERIVATIVES = 3


def implementation_of(value: NtkImplementation | int | str) -> NtkImplementation:
    """The implementation of that name or number. Raises ValueError, naming those there are."""
    try:
        return NtkImplementation[value.upper()] if isinstance(value, str) else NtkImplementation(value)
    except (KeyError, ValueError):
        offered = ", ".join(f"{one.name} ({one.value})" for one in NtkImplementation)
        raise ValueError(f"implementation must be one of {offered}, got {value!r}") from None


def empirical_nngp_fn(
    f: Callable[..., Any], trace_axes: Axes = (-1,), diagonal_axes: Axes = ()
) -> Callable[..., Any]:
    """``nngp_fn(x1, x2, params, **kwargs)``: the products of the outputs of ``f(params, x, **kwargs)``.

    For f(x1) of shape (n1, o) and f(x2) of (n2, o) the kernel is (n1, n2): the mean over o of f(x1)[i, o] f(x2)[j, o].
    In general every output axis gives two axes of the kernel, side by side; those in `diagonal_axes` give one and those
    in `trace_axes` none, averaged over (`ntk.finite.axes`). x2 None is x1. Outputs may be a tree: one kernel each,
    without those between different arrays. kwargs go to f; a tuple of two is one for x1 and one for x2, and a key `rng`
    is split between x1 and x2.

    Raises ValueError for axes that the outputs lack, or cannot be paired along.
    """
    _check_network(f)

    def nngp_fn(x1: Any, x2: Any, params: Any, **apply_fn_kwargs: Any) -> Any:
        kwargs1, kwargs2 = two_sided(apply_fn_kwargs, x2 is None)
        x1, x2 = checked(x1, "x1"), None if x2 is None else checked(x2, "x2")
        first = f(params, x1, **kwargs1)
        second = first if x2 is None else f(params, x2, **kwargs2)

        def contract(out1: Array, out2: Array) -> Array:
            axes = KernelAxes.read(out1.ndim, trace_axes, diagonal_axes)
            axes.check(out1.shape, out2.shape)
            return axes.finish(axes.contract(out1[None, ..., None], out2[None, ..., None]), out1.shape)

        return jax.tree.map(contract, first, second)

    return nngp_fn


def empirical_ntk_fn(
    f: Callable[..., Any],
    trace_axes: Axes = (-1,),
    diagonal_axes: Axes = (),
    vmap_axes: Any = None,
    implementation: NtkImplementation | int | str = NtkImplementation.AUTO,
) -> Callable[..., Any]:
    """``ntk_fn(x1, x2, params, **kwargs)``: the NTK J(x1) J(x2)ᵀ of ``f(params, x, **kwargs)`` along all `params`.

    Shapes, trees and kwargs as in `empirical_nngp_fn`: (n1, n2) for outputs (n, o) by default, the mean over outputs
    of their NTK; (n1, n2, o, o) with ``trace_axes=()``.

    vmap_axes: the axis that numbers the examples in inputs and outputs, mostly 0, or a triple (axis of x, axis of
    f(x), {name: axis of a keyword argument}). It promises that an output depends on its own example alone (so: no
    BatchNorm, and no Dropout that draws for each example). Without it nothing is known about f, and time and memory
    grow with the square of the batch. implementation: see `NtkImplementation`; a member, its number or its name.

    Memory: with `vmap_axes`, examples are taken in blocks whose temporaries fit a gigabyte; x2 None computes half
    the blocks. Compiled on first use for each shape; may be called inside `jax.jit`.

    Raises ValueError for an unknown implementation, inputs that are no arrays, params without any array, and axes that
    inputs or outputs lack or cannot be paired along.

    Source: Novak, Sohl-Dickstein & Schoenholz 2022, "Fast finite width neural tangent kernel".
    """
    _check_network(f)
    run = jax.jit(
        partial(_ntk, f, trace_axes, diagonal_axes, vmap_axes, implementation_of(implementation)),
        static_argnames="fixed",
    )

    def ntk_fn(x1: Any, x2: Any, params: Any, **apply_fn_kwargs: Any) -> Any:
        traced, fixed = traced_and_fixed(apply_fn_kwargs)
        x1, x2 = checked(x1, "x1"), None if x2 is None else checked(x2, "x2")
        return run(x1, x2, params, traced, fixed=fixed)

    return ntk_fn


def empirical_kernel_fn(
    f: Callable[..., Any],
    trace_axes: Axes = (-1,),
    diagonal_axes: Axes = (),
    vmap_axes: Any = None,
    implementation: NtkImplementation | int | str = NtkImplementation.AUTO,
) -> Callable[..., Any]:
    """``kernel_fn(x1, x2, get, params, **kwargs)``: both kernels of `empirical_nngp_fn` and `empirical_ntk_fn`.

    get: "nngp" or "ntk" returns that kernel; a tuple of names, or None for both, returns `ntk.analytic.Kernels`.
    """
    functions = {
        "nngp": empirical_nngp_fn(f, trace_axes, diagonal_axes),
        "ntk": empirical_ntk_fn(f, trace_axes, diagonal_axes, vmap_axes, implementation),
    }

    def kernel_fn(x1: Any, x2: Any, get: Any, params: Any, **apply_fn_kwargs: Any) -> Any:
        return chosen(get, {name: functions[name](x1, x2, params, **apply_fn_kwargs) for name in asked(get)})

    return kernel_fn


def _check_network(f: Any) -> None:
    function(f, "f", "that of a layer is layer.apply_fn" if isinstance(f, Layer) else "")


def _ntk(
    f: Callable[..., Any],
    trace_axes: Axes,
    diagonal_axes: Axes,
    vmap_axes: Any,
    implementation: NtkImplementation,
    x1: Any,
    x2: Any,
    params: Any,
    traced: dict[str, Any],
    fixed: tuple[tuple[str, Any], ...],
) -> Any:
    if not jax.tree.leaves(params):
        raise ValueError("params has no arrays to take derivatives along")
    kwargs1, kwargs2 = two_sided({**traced, **dict(fixed)}, x2 is None)
    outputs = jax.eval_shape(lambda p, x: f(p, x, **kwargs1), params, x1)
    # Of the shape of the NTK; axes that cannot be paired are refused on the way.
    like = jax.eval_shape(
        lambda: empirical_nngp_fn(f, trace_axes, diagonal_axes)(x1, x2, params, **traced, **dict(fixed))
    )
    if not all(leaf.size for leaf in jax.tree.leaves(like)):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    places = read_vmap_axes(vmap_axes, x1, kwargs1, outputs)
    one = split_examples(f, x1, kwargs1, places)
    two = one if x2 is None else split_examples(f, x2, kwargs2, places)
    leaves, structure = jax.tree.flatten(outputs)
    axes = [
        KernelAxes.read(leaf.ndim, trace_axes, diagonal_axes, place if places.mapped else None)
        for leaf, place in zip(leaves, places.outputs, strict=True)
    ]
    if len({a.paired for a in axes}) > 1:
        raise ValueError(
            "trace_axes and diagonal_axes take the axis of examples of some outputs and not of others"
        )
    tails = [
        jax.eval_shape(lambda p, r, i=i: one.single(p, r)[i], params, one.row()).shape
        for i in range(len(axes))
    ]
    block, size = _method(implementation, params, one, two, axes, tails)
    kernels = tiled(block, one.rows, None if x2 is None else two.rows, size, axes)
    done = [a.finish(kernel, leaf.shape) for a, kernel, leaf in zip(axes, kernels, leaves, strict=True)]
    return jax.tree.unflatten(structure, done)


def _method(
    implementation: NtkImplementation,
    params: Any,
    one: Examples,
    two: Examples,
    axes: list[KernelAxes],
    tails: list[tuple[int, ...]],
) -> tuple[Block, int]:
    """The function for a block of rows, and how many rows it should get."""
    programs = [structured.program(side, params) for side in (one, two)]
    plan = structured.plan(params, *programs)
    forward = work(programs[0])
    outputs = sum(int(np.prod(tail)) for tail in tails)
    kept, summed = (
        sum(n) for n in zip(*(a.entries(tail) for a, tail in zip(axes, tails, strict=True)), strict=True)
    )
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    units, inputs, rest = structured.sizes(params, plan)
    if implementation is NtkImplementation.AUTO:
        by_structure = 2 * (inputs + (units + rest) * summed)
        by_products = 2 * outputs * forward.flops
        implementation = (
            NtkImplementation.NTK_VECTOR_PRODUCTS
            if by_products < by_structure
            else NtkImplementation.STRUCTURED_DERIVATIVES
        )
    itemsize = max((leaf.dtype.itemsize for leaf in jax.tree.leaves(params)), default=4)
    passes = (1 + outputs) * forward.entries
    if implementation is NtkImplementation.NTK_VECTOR_PRODUCTS:
        size = rows_within(itemsize * (passes + outputs * weights), itemsize * _per_pair(forward, outputs))
        return vector_products.block(params, one, two, axes), size
    if implementation is NtkImplementation.STRUCTURED_DERIVATIVES:
        size = rows_within(itemsize * (passes + inputs + outputs * (units + rest)), 3 * itemsize * kept)
        return structured.block(params, axes, plan), size
    size = rows_within(itemsize * (passes + outputs * weights), 3 * itemsize * kept)
    return jacobians.block(params, one, two, axes), size


def _per_pair(forward: Work, outputs: int) -> float:
    """Entries that the products of one pair of examples hold: a forward-mode pass per output, and all entries."""
    return outputs * forward.entries + outputs**2
