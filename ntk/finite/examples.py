"""A batch of inputs as separate examples: what `vmap_axes` says about a network.

Everything that computes kernels sees `Examples`: a function of one example, and rows to map it over. Without
`vmap_axes` nothing is known about the network and the whole batch is a single example.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from ntk.arrays import described
from ntk.finite.axes import canonical


@dataclass(frozen=True)
class Examples:
    """`single(params, row)` returns the output arrays of one example, without the axis of examples; `rows` is a list
    of arrays that all lead with the number of examples."""

    single: Callable[[Any, Any], list[Array]]
    rows: list[Array]

    @property
    def count(self) -> int:
        return self.rows[0].shape[0]

    def row(self) -> list[jax.ShapeDtypeStruct]:
        """One row, as shapes and dtypes."""
        return [jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for a in self.rows]


@dataclass(frozen=True)
class VmapAxes:
    """`vmap_axes` for a given network, one entry per array: axes of the inputs, keyword arguments and outputs."""

    inputs: list[int | None]
    keywords: dict[str, int]
    outputs: list[int | None]

    @property
    def mapped(self) -> bool:
        return any(axis is not None for axis in (*self.inputs, *self.keywords.values()))


def read_vmap_axes(vmap_axes: Any, x: Any, kwargs: dict[str, Any], outputs: Any) -> VmapAxes:
    """`vmap_axes`: None, an axis, or a triple (of x, of f(x), {name: axis of a keyword argument}).

    Axes of x and f(x) may be trees of axes, of their structure. Raises ValueError for axes that do not exist, and for
    outputs without an axis of examples where inputs have one.
    """
    triple = isinstance(vmap_axes, tuple) and len(vmap_axes) == 3
    of_x, of_f, of_kwargs = vmap_axes if triple else (vmap_axes, vmap_axes, {})
    names = kwargs if isinstance(of_kwargs, int) else (of_kwargs or {})
    keywords = {
        name: of_kwargs if isinstance(of_kwargs, int) else of_kwargs[name] for name in names if name in kwargs
    }
    keywords = {
        name: canonical(axis, jnp.ndim(kwargs[name]), f"vmap_axes of {name}")[0]
        for name, axis in keywords.items()
    }
    read = VmapAxes(_spread(of_x, x, "inputs"), keywords, _spread(of_f, outputs, "outputs"))
    if read.mapped and any(axis is None for axis in read.outputs):
        raise ValueError(f"vmap_axes gives the inputs an axis of examples and the outputs none: {vmap_axes}")
    return read


def _spread(axes: Any, tree: Any, what: str) -> list[int | None]:
    leaves, structure = jax.tree.flatten(tree)
    each = (
        [axes] * len(leaves)
        if axes is None or isinstance(axes, int)
        else jax.tree.leaves(axes, is_leaf=lambda a: a is None)
    )
    if len(each) != len(leaves):
        raise ValueError(f"vmap_axes: got {len(each)} axes for {what} of {len(leaves)} arrays ({structure})")
    return [
        None if axis is None else canonical(axis, leaf.ndim, f"vmap_axes of the {what}")[0]
        for axis, leaf in zip(each, leaves, strict=True)
    ]


def split_examples(f: Callable[..., Any], x: Any, kwargs: dict[str, Any], axes: VmapAxes) -> Examples:
    """The examples of a batch `x` and keyword arguments."""
    leaves, structure = jax.tree.flatten(x)
    if not axes.mapped:

        def whole(params: Any, row: list[Array]) -> list[Array]:
            return jax.tree.leaves(f(params, jax.tree.unflatten(structure, row), **kwargs))

        return Examples(whole, [leaf[None] for leaf in leaves])

    named = list(axes.keywords)
    places = [*axes.inputs, *(axes.keywords[name] for name in named)]
    arrays = [*leaves, *(jnp.asarray(kwargs[name]) for name in named)]

    def single(params: Any, row: list[Array]) -> list[Array]:
        moving = iter(row)
        full = [
            array if place is None else jnp.expand_dims(next(moving), place)
            for array, place in zip(arrays, places, strict=True)
        ]
        inputs = jax.tree.unflatten(structure, full[: len(leaves)])
        out = f(params, inputs, **{**kwargs, **dict(zip(named, full[len(leaves) :], strict=True))})
        return [jnp.squeeze(o, axis) for o, axis in zip(jax.tree.leaves(out), axes.outputs, strict=True)]

    rows = [
        jnp.moveaxis(array, place, 0)
        for array, place in zip(arrays, places, strict=True)
        if place is not None
    ]
    return Examples(single, rows)


def two_sided(kwargs: dict[str, Any], symmetric: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments for f(x1) and for f(x2).

    A tuple of two is one for each; a key `rng` is split, so that x1 and x2 draw independently, unless the kernel is
    of x1 with itself; anything else is for both.
    """
    first, second = dict(kwargs), dict(kwargs)
    for name, value in kwargs.items():
        if isinstance(value, tuple):
            if len(value) == 2:
                first[name], second[name] = value
        elif name == "rng" and value is not None and not symmetric:
            first[name], second[name] = iter(random.split(value))
    return first, second


def checked(x: Any, name: str) -> Any:
    """`x` itself, an array or a tree with arrays. Raises ValueError for anything else."""
    if any(isinstance(leaf, Array | np.ndarray) for leaf in jax.tree.leaves(x)):
        return x
    raise ValueError(
        f"{name} must be an array or a tree of arrays, got {described(x)}\nhint: numpy.asarray({name})"
    )


def traced_and_fixed(kwargs: dict[str, Any]) -> tuple[dict[str, Any], tuple[tuple[str, Any], ...]]:
    """Keyword arguments made of arrays, and the rest (flags, names), which a compiled function is compiled for."""

    def arrays(value: Any) -> bool:
        leaves = jax.tree.leaves(value)
        return bool(leaves) and all(isinstance(leaf, (Array, np.ndarray)) for leaf in leaves)

    traced = {name: value for name, value in kwargs.items() if arrays(value)}
    return traced, tuple((name, value) for name, value in kwargs.items() if name not in traced)
