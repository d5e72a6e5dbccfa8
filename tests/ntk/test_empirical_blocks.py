"""Blocks of examples: any size gives the whole; what fits a budget; where products with weights are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ntk
from ntk import stax
from ntk.finite import jacobians, structured, vector_products
from ntk.finite.axes import KernelAxes
from ntk.finite.examples import read_vmap_axes, split_examples
from ntk.finite.tiling import rows_within, tiled
from ntk.finite.weights import find
from ntk.finite.work import work

NET = stax.serial(stax.Dense(6, b_std=0.1), stax.Erf(), stax.Dense(2))
_, PARAMS = NET.init_fn(jax.random.key(0), (-1, 3))


def rows(n, *shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, *shape)), jnp.float32)


@settings(max_examples=15)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["square", "rectangle", "paired"]),
)
def test_blocks_of_any_size_give_the_whole(n1, n2, size, form):
    x1 = rows(n1, 3, 2)
    x2 = None if form == "square" else rows(n1 if form == "paired" else n2, 3, 2, seed=1)
    axes = KernelAxes.read(3, (-1,), (0,) if form == "paired" else (), batch=0)

    def block(a, b):
        return [axes.contract(a[0][..., None], (a if b is None else b)[0][..., None])]

    expected = block([x1], None if x2 is None else [x2])[0]
    got = tiled(block, [x1], None if x2 is None else [x2], size, [axes])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["jacobians", "products", "structured"])
def test_kernels_in_blocks_equal_the_whole(method):
    x1, x2 = rows(7, 3), rows(5, 3, seed=1)
    outputs = jax.eval_shape(NET.apply_fn, PARAMS, x1)
    sides = [split_examples(NET.apply_fn, x, {}, read_vmap_axes(0, x, {}, outputs)) for x in (x1, x2)]
    axes = [KernelAxes.read(2, (), (), batch=0)]
    programs = [structured.program(side, PARAMS) for side in sides]
    block = {
        "jacobians": jacobians.block(PARAMS, *sides, axes),
        "products": vector_products.block(PARAMS, *sides, axes),
        "structured": structured.block(PARAMS, axes, structured.plan(PARAMS, *programs)),
    }[method]
    for second in (None, [x2]):
        parts, expected = jax.jit(
            lambda second=second: [tiled(block, [x1], second, n, axes)[0] for n in (3, 9)]
        )()
        np.testing.assert_allclose(parts, expected, rtol=1e-5, atol=1e-6)


def test_large_symmetric_kernels_equal_rectangular_ones():
    x = rows(600, 3)
    kernel = jax.jit(lambda x: ntk.empirical_ntk_fn(NET.apply_fn, (), vmap_axes=0)(x, None, PARAMS))(x)
    np.testing.assert_allclose(kernel, kernel.transpose(1, 0, 3, 2), rtol=1e-5, atol=1e-6)
    some = ntk.empirical_ntk_fn(NET.apply_fn, (), vmap_axes=0)(x, x[jnp.asarray([0, 255, 256, 599])], PARAMS)
    np.testing.assert_allclose(kernel[:, jnp.asarray([0, 255, 256, 599])], some, rtol=1e-4, atol=1e-5)


@given(st.floats(1, 1e12), st.floats(0, 1e9))
def test_blocks_fit_the_budget(row_bytes, pair_bytes):
    size = rows_within(row_bytes, pair_bytes, budget=10**9)
    assert size >= 1
    assert size == 1 or (2 * size * row_bytes <= 10**9 and size**2 * pair_bytes <= 10**9)
    assert 4 * size * row_bytes > 10**9 or 4 * size**2 * max(pair_bytes, 1) > 10**9


def test_products_with_weights_are_found():
    def found(f, *params):
        program = jax.make_jaxpr(lambda p, x: f(*p, x))(params, jnp.ones((1, 3)))
        return {use.leaf: use.scale for use in find(program, len(params)).values()}

    a, b = jnp.ones((3, 3)), jnp.ones((3, 3))
    assert found(lambda a, b, x: jnp.tanh(x @ a) @ (2.0 * b.T), a, b) == {0: 1.0, 1: 2.0}
    assert found(lambda a, b, x: jax.jit(jnp.matmul)(x, a) @ jax.jit(jnp.transpose)(-b), a, b) == {
        0: 1.0,
        1: -1.0,
    }
    assert found(lambda a, b, x: jnp.tanh(x @ a) @ a + b, a, b) == {}, "used twice; added"
    assert found(lambda a, b, x: jnp.ones((2, 3)) @ a + x @ (a @ b), a, b) == {}, (
        "two vectors; weights on weights"
    )
    assert found(lambda a, b, x: (x @ a, b), a, b) == {0: 1.0}, "returned"


def test_work_counts_products_inside_calls_and_loops():
    a, x = jnp.ones((3, 4)), jnp.ones((2, 3))
    assert work(jax.make_jaxpr(jnp.matmul)(x, a)).flops == 2 * 2 * 3 * 4
    assert work(jax.make_jaxpr(jax.jit(lambda x: x @ a))(x)).flops == 2 * 2 * 3 * 4
    loop = jax.make_jaxpr(lambda x: jax.lax.scan(lambda h, _: (h @ jnp.ones((3, 3)), None), x, length=5)[0])(
        x
    )
    assert work(loop).flops >= 5 * 2 * 2 * 3 * 3
    image, kernel = jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 5))
    convolution = jax.make_jaxpr(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )(image, kernel)
    assert work(convolution).flops == 2 * 8 * 8 * 5 * 3 * 3 * 2
