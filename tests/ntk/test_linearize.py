"""Taylor expansions of networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntk
from ntk import stax

INIT, APPLY, _ = stax.serial(stax.Dense(8, b_std=0.1), stax.Erf(), stax.Dense(2))
X = np.random.default_rng(0).standard_normal((4, 3))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def near(params, size, seed=1):
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    return jax.tree.map(lambda p: p + size * jax.random.normal(next(keys), p.shape), params)


def test_linearized_is_value_plus_jacobian_times_step():
    _, params = INIT(jax.random.key(0), (-1, 3))
    other = near(params, 1.0)
    jacobian = jax.jacrev(APPLY)(params, X)
    step = jax.tree.map(
        lambda j, new, old: jnp.tensordot(j, new - old, axes=new.ndim), jacobian, other, params
    )
    np.testing.assert_allclose(
        ntk.linearize(APPLY, params)(other, X), APPLY(params, X) + sum(jax.tree.leaves(step)), rtol=1e-12
    )


def test_the_ntk_of_the_linearization_is_constant():
    _, params = INIT(jax.random.key(0), (-1, 3))
    kernel = ntk.empirical_ntk_fn(APPLY, (), vmap_axes=0)(X, None, params)
    linear = ntk.empirical_ntk_fn(ntk.linearize(APPLY, params), (), vmap_axes=0)
    for size in (0.0, 2.0):
        np.testing.assert_allclose(linear(X, None, near(params, size)), kernel, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_the_error_is_of_one_order_higher(degree):
    _, params = INIT(jax.random.key(0), (-1, 3))
    expanded = ntk.taylor_expand(APPLY, params, degree)
    errors = [np.linalg.norm(expanded(near(params, h), X) - APPLY(near(params, h), X)) for h in (0.02, 0.01)]
    assert 1.6 ** (degree + 1) < errors[0] / errors[1] < 2.5 ** (degree + 1)


def test_polynomials_are_reproduced():
    def f(params, x, power):
        return {"y": (params["w"] * x) ** power}

    params, other = {"w": jnp.asarray(0.7)}, {"w": jnp.asarray(-1.3)}
    got = ntk.taylor_expand(f, params, 3)(other, X, power=3)
    np.testing.assert_allclose(got["y"], f(other, X, 3)["y"], rtol=1e-12)


def test_a_degree_is_a_natural_number():
    for degree in (-1, 1.5, True):
        with pytest.raises(ValueError, match="degree must be an integer of at least 0"):
            ntk.taylor_expand(APPLY, (), degree)
