"""`kernel_fn` as users call it: forms of `get`, precision, tracing, blocks."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk import stax
from ntk.analytic import Kernels

NET = stax.serial(stax.Dense(512, W_std=1.5, b_std=0.05), stax.Relu(), stax.Dense(1))


def rows(n, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_unpacks_into_three_functions_and_names_its_results():
    init_fn, apply_fn, kernel_fn = NET
    assert NET[2] == NET[-1] == kernel_fn
    shape, params = init_fn(jax.random.key(0), (-1, 5))
    assert shape == (-1, 1)
    assert apply_fn(params, rows(3)).shape == (3, 1)
    both = kernel_fn(rows(3), rows(2, seed=1))
    assert both.nngp.shape == both.ntk.shape == (3, 2)
    pair = kernel_fn(rows(3), rows(2, seed=1), ("nngp", "ntk"))
    assert np.array_equal(pair.ntk, both.ntk)
    assert np.allclose(kernel_fn(rows(3), None, "ntk"), kernel_fn(rows(3), rows(3), "ntk"), rtol=1e-14)
    assert kernel_fn(rows(3), None, ("ntk",)).nngp is None
    with pytest.raises(ValueError, match="get must be"):
        kernel_fn(rows(3), None, "nkt")


def test_results_come_in_the_order_of_get():
    both = NET.kernel_fn(rows(3))
    ntk, nngp = swapped = NET.kernel_fn(rows(3), None, ("NTK", "nngp"))
    (alone,) = NET.kernel_fn(rows(3), None, ["ntk"])
    assert (
        np.array_equal(ntk, both.ntk) and np.array_equal(nngp, both.nngp) and np.array_equal(alone, both.ntk)
    )
    assert swapped.ntk is ntk and swapped.nngp is nngp and isinstance(swapped, Kernels)
    assert np.array_equal(both[0], both.nngp) and np.array_equal(
        NET.kernel_fn(rows(3), None, "Ntk"), both.ntk
    )
    assert np.array_equal(pickle.loads(pickle.dumps(swapped))[0], ntk)
    traced = jax.jit(lambda x: NET.kernel_fn(x, None, ("ntk", "nngp")))(rows(3).astype(np.float32))
    np.testing.assert_allclose(traced[0], both.ntk, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        NET.kernel_fn(rows(3), None, ())
    with pytest.raises(ValueError, match="once"):
        NET.kernel_fn(rows(3), None, ("ntk", "NTK"))


def test_without_weights_the_ntk_is_zero():
    x = rows(3)
    kernels = stax.serial().kernel_fn(x)
    np.testing.assert_allclose(kernels.nngp, x @ x.T / 5, rtol=1e-14)
    assert kernels.ntk.shape == (3, 3) and not kernels.ntk.any()


def test_precision_is_that_of_the_inputs():
    assert NET.kernel_fn(rows(3), None, "ntk").dtype == jnp.float64
    assert NET.kernel_fn(rows(3).astype(np.float32), None, "ntk").dtype == jnp.float32
    assert NET.kernel_fn(jnp.ones((2, 5)), None, "ntk").dtype == jnp.ones(()).dtype
    assert jnp.ones(()).dtype == jnp.float32, "the global flag is left alone"
    with jax.enable_x64(True):
        assert isinstance(NET.kernel_fn(rows(3), None, "ntk"), jax.Array)


def test_blocks_equal_the_whole():
    x = rows(1100).astype(np.float32)
    symmetric, rectangular = NET.kernel_fn(x, None, "ntk"), NET.kernel_fn(x, x[:3], "ntk")
    assert np.array_equal(symmetric, symmetric.T)
    np.testing.assert_allclose(symmetric[:, :3], rectangular, rtol=1e-5, atol=1e-6)


def test_traced_inputs_agree_with_concrete_ones():
    x, y = rows(4).astype(np.float32), rows(3, seed=1).astype(np.float32)
    np.testing.assert_allclose(
        jax.jit(NET.kernel_fn, static_argnums=2)(x, y, "ntk"), NET.kernel_fn(x, y, "ntk"), rtol=1e-5
    )
    np.testing.assert_allclose(
        jax.jit(lambda x: NET.kernel_fn(x, None, "ntk"))(x),
        NET.kernel_fn(x, None, "ntk"),
        rtol=1e-5,
        atol=1e-6,
    )
    batched = jax.vmap(lambda x: NET.kernel_fn(x, y, "ntk"))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batched[0], NET.kernel_fn(x, y, "ntk"), rtol=1e-5)


def test_gradients_are_finite_and_right():
    x = rows(3)

    def total(x):
        return NET.kernel_fn(x, None, "ntk").sum()

    def value(x):
        return float(total(x))

    gradient = jax.grad(total)(x.astype(np.float32))
    step = 1e-3 * rows(3, seed=1)
    numeric = (value(x + step) - value(x - step)) / 2
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(np.sum(np.asarray(gradient) * step), numeric, rtol=1e-3)
    assert np.isfinite(jax.hessian(lambda t: total(t * x.astype(np.float32)))(1.0))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (1j * rows(3), "got complex128"),
        (np.ma.masked_array(rows(3), rows(3) > 0), "no masked entries"),
        (rows(3).astype(object), "got an array of object\nhint: x.astype"),
        (rows(3).astype(str), "got an array of <U"),
        ("foo", "got 'foo'"),
        ("ntk", r"hint: kernel_fn\(x1, None, 'ntk'\)"),
        ([[1.0, 2.0], [3.0]], "got a list"),
        (jax.random.key(0), "got an array of key"),
        (NET.kernel_fn(rows(3)), r"kernels of another kernel_fn\nhint: .*stax.serial\(first, second\)"),
    ],
)
def test_inputs_that_are_no_real_numbers_are_refused(x, message):
    for call in (lambda: NET.kernel_fn(x), lambda: NET.kernel_fn(rows(3), x)):
        with pytest.raises(stax.ArchitectureError, match=message):
            call()


def test_complex_numbers_are_refused_where_traced():
    with pytest.raises(stax.ArchitectureError, match="got complex64"):
        jax.jit(NET.kernel_fn)(1j * rows(3))


def test_integers_booleans_and_lists_are_numbers():
    signs = rows(3) > 0
    expected = NET.kernel_fn(signs.astype(float), None, "ntk")
    for x in (signs, signs.astype(np.int8), signs.tolist(), np.ma.masked_array(signs)):
        assert np.array_equal(NET.kernel_fn(x, None, "ntk"), expected)


def test_arguments_of_neural_tangents_that_are_not_here_are_named():
    for name in ("mask_constant", "diagonal_batch", "diagonal_spatial"):
        assert NET.kernel_fn(rows(3), None, "ntk", **{name: None}).shape == (3, 3)
        with pytest.raises(ValueError, match=f"x1, x2, get and pattern, got {name}=True\nhint"):
            NET.kernel_fn(rows(3), None, "ntk", **{name: True})
    with pytest.raises(ValueError, match="got other=None"):
        NET.kernel_fn(rows(3), other=None)
    with pytest.raises(ValueError, match=r"get must be .* got 3"):
        NET.kernel_fn(rows(3), None, 3)


def test_inputs_of_wrong_shape_are_refused():
    with pytest.raises(stax.ArchitectureError, match="batch"):
        NET.kernel_fn(np.zeros(3))
    with pytest.raises(stax.ArchitectureError, match="agree"):
        NET.kernel_fn(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(
        stax.ArchitectureError, match="ends with positions of shape \\(8, 7\\); hint: add Flatten"
    ):
        NET.kernel_fn(np.zeros((3, 8, 7, 1)))
