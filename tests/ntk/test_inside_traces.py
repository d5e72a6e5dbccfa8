"""Public functions on data that a traced function closes over: the same inside as outside, whichever comes first."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ntk
from ntk import phases, predict, stax
from ntk.analytic.results import NngpNtkKernels

DENSE = stax.serial(stax.Dense(8, W_std=1.5, b_std=0.1), stax.Relu(), stax.Dense(1))
IMAGES = stax.serial(stax.Conv(4, (3, 3), padding="SAME"), stax.Relu(), stax.Flatten(), stax.Dense(1))
NORMED = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(4), stax.BatchNorm(), stax.Dense(1))
GRAPHS = stax.serial(stax.Aggregate(), stax.Dense(4), stax.Relu(), stax.GlobalAvgPool(), stax.Dense(1))

rng = np.random.default_rng(0)
X, X2, Y = rng.standard_normal((4, 3)), rng.standard_normal((2, 3)), rng.standard_normal((4, 1))
PICTURES = rng.standard_normal((3, 4, 4, 2)).astype(np.float32)
ADJACENCY = rng.random((3, 4, 4)).astype(np.float32)
_, PARAMS = DENSE.init_fn(jax.random.key(0), (-1, 3))
K, K2 = np.asarray(DENSE.kernel_fn(X, None, "ntk")), np.asarray(DENSE.kernel_fn(X2, X, "ntk"))


def own_kernel(x1, x2, get):
    """A kernel function of a user's, in JAX."""
    x1, x2 = jnp.asarray(x1), jnp.asarray(x1 if x2 is None else x2)
    k = jnp.exp(-jnp.sum((x1[:, None] - x2[None]) ** 2, axis=-1))
    return k if isinstance(get, str) else NngpNtkKernels(k, 2 * k)


def ensemble(kernel_fn, *arguments):
    return predict.gradient_descent_mse_ensemble(kernel_fn, X, Y)(*arguments)


def monte_carlo(**kwargs):
    return ntk.monte_carlo_kernel_fn(DENSE.init_fn, DENSE.apply_fn, jax.random.key(1), 2, **kwargs)


def empirical(implementation):
    return ntk.empirical_ntk_fn(DENSE.apply_fn, vmap_axes=0, implementation=implementation)


# Each makes a new function, so that what it keeps is kept first inside the trace.
CALLS = {
    "kernel_fn": lambda: DENSE.kernel_fn(X, None),
    "kernel_fn of two": lambda: DENSE.kernel_fn(X, X2, "ntk"),
    "kernel_fn of tiles": lambda: DENSE.kernel_fn(np.tile(X, (300, 1)), None, "ntk"),
    "kernel_fn of images": lambda: IMAGES.kernel_fn(PICTURES, None, "ntk"),
    "kernel_fn of batches": lambda: NORMED.kernel_fn(X, X2, "ntk"),
    "kernel_fn of graphs": lambda: GRAPHS.kernel_fn(PICTURES[:, 0], None, "ntk", pattern=ADJACENCY),
    "apply_fn": lambda: DENSE.apply_fn(PARAMS, X),
    "init_fn": lambda: DENSE.init_fn(jax.random.key(0), (-1, 3))[1],
    "empirical_nngp_fn": lambda: ntk.empirical_nngp_fn(DENSE.apply_fn)(X, X2, PARAMS),
    "empirical_kernel_fn": lambda: ntk.empirical_kernel_fn(DENSE.apply_fn)(X, None, None, PARAMS),
    **{
        f"empirical_ntk_fn, {one.name}": lambda one=one: empirical(one)(X, None, PARAMS)
        for one in ntk.NtkImplementation
    },
    "empirical_ntk_vp_fn": lambda: ntk.empirical_ntk_vp_fn(DENSE.apply_fn, X, None, PARAMS)(Y),
    "linearize": lambda: ntk.linearize(DENSE.apply_fn, PARAMS)(PARAMS, X),
    "taylor_expand": lambda: ntk.taylor_expand(DENSE.apply_fn, PARAMS, 2)(PARAMS, X),
    "monte_carlo_kernel_fn": lambda: monte_carlo()(X, None, "ntk"),
    "monte_carlo_kernel_fn on the host": lambda: monte_carlo(store_on_device=False, batch_size=2)(X, None),
    "monte_carlo_kernel_fn.estimates": lambda: next(monte_carlo().estimates(X, X2, "nngp")),
    "gradient_descent_mse": lambda: predict.gradient_descent_mse(K, Y)(np.array([1.0, 2.0]), 0.0, 0.0, K2),
    "gradient_descent_mse at the end": lambda: predict.gradient_descent_mse(K, Y)(None, 0.0, 0.0, K2),
    "gradient_descent_mse_ensemble": lambda: ensemble(DENSE.kernel_fn, 2.0, X2, None, True),
    "gradient_descent_mse_ensemble, own kernel": lambda: ensemble(own_kernel, 2.0, X2, "ntk", True),
    "gradient_descent_mse_ensemble at the end": lambda: ensemble(own_kernel, None, X2, None, True),
    "gp_inference": lambda: predict.gp_inference(K, Y)("ntkgp", K2, np.eye(2)),
    "gradient_descent": lambda: predict.gradient_descent(lambda f, y: jnp.sum((f - y) ** 2), K, Y)(1.0),
    "max_learning_rate": lambda: predict.max_learning_rate(K),
    "phase": lambda: phases.phase(stax.Relu(), 1.0, 0.1).chi,
}

AROUND = {
    "jit": lambda f: jax.jit(lambda s: jax.tree.map(lambda a: s * a, f()))(1.0),
    "vmap": lambda f: jax.tree.map(
        lambda a: a[0], jax.vmap(lambda s: jax.tree.map(lambda a: s * a, f()))(jnp.ones(1))
    ),
}


@cache
def outside(call):
    return CALLS[call]()


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("call", CALLS)
def test_closed_over_data(call, around):
    found = AROUND[around](CALLS[call])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), found, outside(call))


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, lambda f: lambda s: lax.map(f, jnp.ones(2))])
def test_kernels_inside_are_those_outside_bit_for_bit(transform):
    found = []

    def run(s):
        found.append([DENSE.kernel_fn(X, None, "ntk"), predict.max_learning_rate(K)])
        return s

    transform(run)(1.0)
    assert np.array_equal(found[0][0], K) and found[0][1] == predict.max_learning_rate(K)


def test_training_rows_must_be_known():
    for name, call in {
        "y_train": lambda y: predict.gradient_descent_mse(K, y)(1.0),
        "x_train": lambda x: predict.gradient_descent_mse_ensemble(DENSE.kernel_fn, x, Y)(1.0),
        "ntk of the training rows": lambda k: predict.gp_inference(k, Y)("ntk"),
        "starts from": lambda f: predict.gradient_descent(lambda f, y: jnp.sum((f - y) ** 2), K, Y)(1.0, f),
    }.items():
        given = K if "ntk" in name else X if "x_" in name else Y
        with pytest.raises(ValueError, match=f"{name}.* must be known.*\nhint: .* outside of jit"):
            jax.jit(call)(given.astype(np.float32))
