"""Products of the empirical kernel with vectors, and the kernel from such products.

Θ(x1, x2) v = J(x1) (J(x2)ᵀ v): one backward pass at x2, one forward-mode pass at x1, no kernel and no Jacobian.
Novak, Sohl-Dickstein & Schoenholz 2022, "Fast finite width neural tangent kernel", section 3.2 and appendix L.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntk.finite.axes import KernelAxes
from ntk.finite.examples import Examples, two_sided
from ntk.finite.tiling import Block


def empirical_ntk_vp_fn(
    f: Callable[..., Any], x1: Any, x2: Any, params: Any, **apply_fn_kwargs: Any
) -> Callable[[Any], Any]:
    """A function v ↦ Θ(x1, x2) v, where Θ = J(x1) J(x2)ᵀ is the NTK of ``f(params, x, **kwargs)`` with neither trace
    nor diagonal taken, in the memory of a gradient and the time of a few forward passes.

    x1, x2: batches of inputs, None for x2 = x1. v has the tree and shapes of f(params, x2), the product those of
    f(params, x1). For outputs that are a tree the product includes the kernels between its arrays. Keyword arguments
    are passed on to f as in `empirical_ntk_fn`. The result may be given to `jax.jit`.
    """
    symmetric = x2 is None
    kwargs1, kwargs2 = two_sided(apply_fn_kwargs, symmetric)

    def product(cotangents: Any) -> Any:
        _, pull = jax.vjp(lambda p: f(p, x1 if symmetric else x2, **kwargs2), params)
        (direction,) = pull(cotangents)
        return jax.jvp(lambda p: f(p, x1, **kwargs1), (params,), (direction,))[1]

    return product


def block(params: Any, one: Examples, two: Examples, axes: list[KernelAxes]) -> Block:
    """Kernels of a block of rows of `one` with rows of `two`, one product per row and output of `two`."""

    outputs = jax.eval_shape(two.single, params, two.row())

    def column(leaf: int, row1: list[Array], direction: Any) -> Array:
        return jax.jvp(lambda p: one.single(p, row1)[leaf], (params,), (direction,))[1]

    def directions(leaf: int, row2: list[Array]) -> Any:
        out, pull = jax.vjp(lambda p: two.single(p, row2)[leaf], params)
        return jax.vmap(pull)(jnp.eye(out.size, dtype=out.dtype).reshape(out.size, *out.shape))[0]

    def pair(leaf: int, row1: list[Array], gradients: Any) -> Array:
        """(\\*outputs of row1, \\*outputs of the row of the gradients)."""
        columns = jax.vmap(lambda d: column(leaf, row1, d), out_axes=-1)(gradients)
        return columns.reshape(*columns.shape[:-1], *outputs[leaf].shape)

    def kernel(leaf: int, rows1: list[Array], rows2: list[Array]) -> Array:
        gradients = jax.vmap(lambda row: directions(leaf, row))(rows2)
        if axes[leaf].paired:
            return axes[leaf].reduce(jax.vmap(lambda r, g: pair(leaf, r, g))(rows1, gradients))
        across = jax.vmap(lambda g: jax.vmap(lambda r: pair(leaf, r, g))(rows1), out_axes=1)
        return axes[leaf].reduce(across(gradients))

    return lambda rows1, rows2: [
        kernel(i, rows1, rows1 if rows2 is None else rows2) for i in range(len(axes))
    ]
