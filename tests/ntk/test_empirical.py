"""Empirical kernels: every implementation is the product of Jacobians, whatever the axes, network and blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ntk
from ntk import stax

NET = stax.serial(
    stax.Dense(5, W_std=1.5, b_std=0.1),
    stax.Relu(),
    stax.Dense(4, parameterization="standard", b_std=0.3),
    stax.Erf(),
    stax.Dense(2),
)
_, PARAMS = NET.init_fn(jax.random.key(0), (-1, 3))
METHODS = ["JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES", "AUTO"]


def rows(n, *shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, *shape)), jnp.float32)


X1, X2 = rows(5, 3), rows(4, 3, seed=1)


def jacobian(f, params, x):
    """(n·outputs, parameters)."""
    count = f(params, x).size
    leaves = jax.tree.leaves(jax.jit(jax.jacfwd(f))(params, x))
    return np.concatenate([np.asarray(leaf).reshape(count, -1) for leaf in leaves], axis=1).astype(float)


def whole(f, params, x1, x2):
    """The kernel (n1, n2, o, o) of outputs (n, o)."""
    out1, out2 = f(params, x1).shape, f(params, x2).shape
    return (jacobian(f, params, x1) @ jacobian(f, params, x2).T).reshape(*out1, *out2).transpose(0, 2, 1, 3)


FULL, OWN = (whole(NET.apply_fn, PARAMS, X1, x) for x in (X2, X1))


def close(got, expected, tolerance=3e-6):
    assert got.shape == np.shape(expected)
    assert np.max(np.abs(np.asarray(got) - expected)) < tolerance * np.max(np.abs(expected))


@pytest.mark.parametrize("vmap_axes", [None, 0])
@pytest.mark.parametrize("method", METHODS)
def test_every_implementation_is_the_product_of_jacobians(method, vmap_axes):
    def kernel(**axes):
        return ntk.empirical_ntk_fn(NET.apply_fn, vmap_axes=vmap_axes, implementation=method, **axes)(
            X1, X2, PARAMS
        )

    close(kernel(), np.einsum("nmoo->nm", FULL) / 2)
    close(kernel(trace_axes=()), FULL)
    close(kernel(trace_axes=(), diagonal_axes=-1), np.einsum("nmoo->nmo", FULL))


@pytest.mark.parametrize("vmap_axes", [None, 0])
@pytest.mark.parametrize("method", METHODS[1:3])
def test_any_output_axis_may_be_traced_or_diagonal(method, vmap_axes):
    def kernel(**axes):
        return ntk.empirical_ntk_fn(NET.apply_fn, vmap_axes=vmap_axes, implementation=method, **axes)(
            X1, None, PARAMS
        )

    close(kernel(diagonal_axes=(0,)), np.einsum("nnoo->n", OWN) / 2)
    close(kernel(trace_axes=(0,)), np.einsum("nnop->op", OWN) / 5)
    close(kernel(trace_axes=(0, 1)), np.einsum("nnoo->", OWN) / 10)


@pytest.mark.parametrize("method", METHODS)
def test_a_kernel_with_itself_is_symmetric_and_positive(method):
    kernel = ntk.empirical_ntk_fn(NET.apply_fn, vmap_axes=0, implementation=method)(rows(12, 3), None, PARAMS)
    assert np.allclose(kernel, kernel.T, rtol=1e-5)
    assert np.linalg.eigvalsh(np.asarray(kernel, float)).min() > -1e-5 * np.trace(kernel)


def test_nngp_is_the_product_of_outputs():
    out1, out2 = (np.asarray(NET.apply_fn(PARAMS, x), float) for x in (X1, X2))
    close(ntk.empirical_nngp_fn(NET.apply_fn)(X1, X2, PARAMS), out1 @ out2.T / 2)
    close(
        ntk.empirical_nngp_fn(NET.apply_fn, trace_axes=())(X1, None, PARAMS),
        np.einsum("no,mp->nmop", out1, out1),
    )
    close(ntk.empirical_nngp_fn(NET.apply_fn, diagonal_axes=(0,))(X1, None, PARAMS), (out1**2).mean(1))


def test_both_kernels_by_name():
    kernel_fn = ntk.empirical_kernel_fn(NET.apply_fn, vmap_axes=0)
    both = kernel_fn(X1, X2, None, PARAMS)
    assert np.array_equal(both.ntk, kernel_fn(X1, X2, "ntk", PARAMS))
    assert np.array_equal(both.nngp, kernel_fn(X1, X2, ("nngp",), PARAMS).nngp)
    assert kernel_fn(X1, X2, ("nngp",), PARAMS).ntk is None
    with pytest.raises(ValueError, match="get must be"):
        kernel_fn(X1, X2, "nkt", PARAMS)


def test_products_with_vectors_equal_the_matrix():
    vector = rows(4, 2, seed=2)
    product = jax.jit(ntk.empirical_ntk_vp_fn(NET.apply_fn, X1, X2, PARAMS))(vector)
    close(product, np.einsum("nmop,mp->no", FULL, vector))
    own = ntk.empirical_ntk_vp_fn(NET.apply_fn, X1, None, PARAMS)(X1[:, :2])
    close(own, np.einsum("nmop,mp->no", OWN, X1[:, :2]))


A, B, C = rows(3, 3, seed=3), rows(3, 3, seed=4), rows(3, seed=5)
PROGRAMS = {
    "shared": lambda p, x: jnp.tanh(x @ p["a"]) @ p["a"],
    "transposed": lambda p, x: jnp.tanh(x @ p["a"].T) @ (-2.0 * p["b"]),
    "regularised": lambda p, x: (x @ p["a"]) * jnp.sum(p["a"] ** 2) + p["c"],
    "product of weights": lambda p, x: jnp.sin(x @ (p["a"] @ p["b"])) + p["c"],
    "compiled inside": lambda p, x: (
        jax.nn.gelu(jax.jit(lambda a, x: jax.nn.relu(x @ a.T))(p["a"], x)) @ p["b"]
    ),
    "checkpointed": lambda p, x: jax.checkpoint(lambda a, x: jnp.tanh(x @ a))(p["a"], x) @ p["b"],
    "scanned": lambda p, x: lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, jnp.stack([p["a"], p["b"]]))[0],
    "weights on the left": lambda p, x: (p["b"] @ jnp.tanh(p["a"].reshape(3, 3) @ x.T)).T / 3.0,
    "several positions": lambda p, x: (
        jnp.tanh(jnp.stack([x, 2 * x], 1) @ p["a"]).reshape(len(x), 6)[:, :3] @ p["b"]
    ),
    "unused": lambda p, x: jnp.cos(x),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_structure_is_only_used_where_it_holds(name):
    f, params = PROGRAMS[name], {"a": A, "b": B, "c": C}
    full = whole(f, params, X1, X2)
    for method in METHODS[1:3]:
        got = ntk.empirical_ntk_fn(f, (), vmap_axes=0, implementation=method)(X1, X2, params)
        assert np.max(np.abs(np.asarray(got) - full)) <= 1e-5 * np.max(np.abs(full))


def test_outputs_and_inputs_may_be_trees_on_any_axis():
    def f(params, x, gain):
        a, b = x["a"].T @ A, x["b"] @ params
        return {"sum": (gain[:, None] * (a @ params) + b).T, "squares": jnp.sum(b, 1) ** 2}

    x1, x2 = {"a": X1.T, "b": X1}, {"a": X2.T, "b": X2}
    axes = ({"a": 1, "b": 0}, {"squares": 0, "sum": 1}, {"gain": 0})
    gains = (jnp.arange(1.0, 6.0), jnp.arange(2.0, 6.0))
    results = [
        ntk.empirical_ntk_fn(f, (), vmap_axes=vmap_axes, implementation=method)(x1, x2, B, gain=gains)
        for method, vmap_axes in [*((m, axes) for m in METHODS), (METHODS[2], None)]
    ]
    first = jacobian(lambda p, x: f(p, x, gains[0])["sum"], B, x1)
    second = jacobian(lambda p, x: f(p, x, gains[1])["sum"], B, x2)
    expected = (first @ second.T).reshape(3, 5, 3, 4).transpose(0, 2, 1, 3)
    for result in results:
        close(result["sum"], expected)
        close(result["squares"], np.asarray(results[0]["squares"]))


def test_flags_and_keys_reach_the_network():
    def f(params, x, train, rng):
        noise = jax.random.normal(rng, x.shape) if train else 0.0
        return (x + noise) @ params

    ntk_fn = ntk.empirical_ntk_fn(f, (), vmap_axes=None)
    key = jax.random.key(3)
    assert np.allclose(
        ntk_fn(X1, X1, B, train=False, rng=key), ntk_fn(X1, None, B, train=False, rng=key), rtol=1e-5
    )
    own = ntk_fn(X1, None, B, train=True, rng=key)
    assert np.allclose(own, own.transpose(1, 0, 3, 2), rtol=1e-5), "one draw for both sides"
    assert not np.allclose(own, ntk_fn(X1, X1, B, train=True, rng=key), rtol=1e-2), "two draws"


def test_precision_is_that_of_the_parameters():
    assert ntk.empirical_ntk_fn(NET.apply_fn, vmap_axes=0)(X1, None, PARAMS).dtype == jnp.float32
    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype(float), PARAMS)
        wide = ntk.empirical_ntk_fn(NET.apply_fn, (), vmap_axes=0)(np.asarray(X1, float), None, params)
        assert wide.dtype == jnp.float64
        close(wide, whole(NET.apply_fn, params, np.asarray(X1, float), np.asarray(X1, float)), 1e-14)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"AUTO \(0\), JACOBIAN_CONTRACTION \(1\).*got 'FAST'"):
        ntk.empirical_ntk_fn(NET.apply_fn, implementation="FAST")
    with pytest.raises(ValueError, match="got 7"):
        ntk.empirical_ntk_fn(NET.apply_fn, implementation=7)
    with pytest.raises(ValueError, match="both name the output axis 1"):
        ntk.empirical_ntk_fn(NET.apply_fn, -1, 1)(X1, None, PARAMS)
    with pytest.raises(ValueError, match="trace_axes: the output has 2 axes, got axis 2"):
        ntk.empirical_nngp_fn(NET.apply_fn, 2)(X1, None, PARAMS)
    with pytest.raises(ValueError, match="vmap_axes of the inputs"):
        ntk.empirical_ntk_fn(NET.apply_fn, vmap_axes=5)(X1, None, PARAMS)
    for of_kernel, axes in ((ntk.empirical_nngp_fn, {}), (ntk.empirical_ntk_fn, {"vmap_axes": 0})):
        for name in ("trace_axes", "diagonal_axes"):
            kernel_fn = of_kernel(NET.apply_fn, **{"trace_axes": (), name: 0, **axes})
            with pytest.raises(ValueError, match=rf"{name} pair .* along axis 0, .* got {len(X1)} and 1"):
                kernel_fn(X1, X1[:1], PARAMS)
        with pytest.raises(ValueError, match=r"f must be a function, got Serial\nhint: .* layer.apply_fn"):
            of_kernel(NET)
        with pytest.raises(ValueError, match="x1 must be an array or a tree of arrays, got a list"):
            of_kernel(NET.apply_fn)(X1.tolist(), None, PARAMS)
    with pytest.raises(ValueError, match=r"trace_axes must be an integer .* got 0.5"):
        ntk.empirical_nngp_fn(NET.apply_fn, 0.5)(X1, None, PARAMS)
    with pytest.raises(ValueError, match="no arrays"):
        ntk.empirical_ntk_fn(lambda params, x: x)(X1, None, ())
    assert ntk.NtkImplementation["AUTO"] == 0


@pytest.mark.parametrize("implementation", ntk.NtkImplementation)
@pytest.mark.parametrize("vmap_axes", [0, None])
def test_no_rows_have_an_empty_kernel(implementation, vmap_axes):
    ntk_fn = ntk.empirical_ntk_fn(NET.apply_fn, (), vmap_axes=vmap_axes, implementation=implementation)
    outputs = NET.apply_fn(PARAMS, X1).shape[1]
    for x1, x2 in ((X1[:0], None), (X1, X1[:0]), (X1[:0], X1)):
        other = x1 if x2 is None else x2
        assert ntk_fn(x1, x2, PARAMS).shape == (len(x1), len(other), outputs, outputs)


@pytest.mark.parametrize(
    ("params", "x", "message"),
    [
        (
            PARAMS,
            X1[..., :-1],
            r"params\[0\]\[0\] has shape .* inputs of shape .*: params and inputs do not go",
        ),
        (PARAMS[:-1], X1, "params must be those that init_fn"),
        (X1, PARAMS, "x must be inputs or a tuple of such"),
        (PARAMS, 1j * X1, "x must be an array of real numbers, got complex"),
    ],
)
def test_params_and_inputs_that_do_not_go_together(params, x, message):
    with pytest.raises(stax.ArchitectureError, match=message):
        NET.apply_fn(params, x)


def test_networks_start_from_keys_and_shapes():
    with pytest.raises(ValueError, match=r"key must be a key of JAX, got 0\nhint"):
        NET.init_fn(0, (-1, 3))
    for shape in (3, (), (-1,), "ab"):
        with pytest.raises(
            stax.ArchitectureError, match=r"must have shape \(batch, \*spatial, channels\), got"
        ):
            NET.init_fn(jax.random.key(0), shape)


def test_auto_takes_products_for_many_outputs_of_shared_weights():
    weights, x = rows(20, 20, seed=6) / 20, rows(3, 20, seed=7)

    def f(w, x):
        return jnp.tanh(x @ w) @ w

    auto, products, structured = (
        str(jax.make_jaxpr(ntk.empirical_ntk_fn(f, (), vmap_axes=0, implementation=method))(x, x, weights))
        for method in ("AUTO", "NTK_VECTOR_PRODUCTS", "STRUCTURED_DERIVATIVES")
    )
    assert auto == products != structured
    close(ntk.empirical_ntk_fn(f, (), vmap_axes=0)(x, x, weights), whole(f, weights, x, x))
