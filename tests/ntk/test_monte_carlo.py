"""Averages over random networks: they converge to the infinite-width kernels, in blocks as whole, at the known rate."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import ntk
from ntk import stax

# A network of one hidden layer has the infinite-width kernels as its exact means, at any width.
NET = stax.serial(stax.Dense(32, W_std=1.5, b_std=0.3), stax.Relu(), stax.Dense(2, W_std=1.2, b_std=0.1))
X = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)


def sampler(n_samples, **arguments):
    return ntk.monte_carlo_kernel_fn(
        NET.init_fn, NET.apply_fn, jax.random.key(0), n_samples, **{"vmap_axes": 0, **arguments}
    )


def test_means_converge_within_their_standard_errors_at_the_known_rate():
    exact = NET.kernel_fn(X, Y)
    few, many = sampler([64, 1024]).estimates(X, Y)
    assert (few.n_samples, many.n_samples) == (64, 1024)
    for name in ("nngp", "ntk"):
        for estimate in (few, many):
            mean, error = getattr(estimate.mean, name), getattr(estimate.standard_error, name)
            assert np.all(np.abs(mean - getattr(exact, name)) < 4 * error)
        rate = getattr(few.standard_error, name) / getattr(many.standard_error, name)
        assert np.median(rate) == pytest.approx(4, rel=0.25)


def test_means_and_errors_are_those_of_the_samples():
    means = sampler([4, 1, 2, 3], vmap_axes=None)
    estimates = list(means.estimates(X, None, "ntk"))
    prefix = [np.asarray(estimate.mean, float) for estimate in estimates]
    samples = [prefix[0], *((n + 1) * prefix[n] - n * prefix[n - 1] for n in range(1, 4))]
    assert np.isnan(estimates[0].standard_error).all()
    np.testing.assert_allclose(prefix[-1], np.mean(samples, 0), rtol=1e-5)
    np.testing.assert_allclose(estimates[-1].standard_error, np.std(samples, 0, ddof=1) / 2, rtol=1e-3)
    for mean, estimate in zip(means(X, None, "ntk"), estimates, strict=True):
        assert np.array_equal(mean, estimate.mean)


@pytest.mark.parametrize(("x2", "store_on_device"), [(None, True), (Y[:3], False)])
def test_blocks_and_storage_do_not_change_the_mean(x2, store_on_device):
    blocks = sampler(2, batch_size=2, store_on_device=store_on_device, trace_axes=(), device_count=0)(
        X[:4], x2
    )
    whole = sampler(2, trace_axes=(), device_count=1)(X[:4], x2)
    for got, expected in zip(blocks, whole, strict=True):
        assert isinstance(got, jax.Array if store_on_device else np.ndarray)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_networks_may_be_spread_over_devices():
    program = (
        "import jax, ntk; from ntk import stax; import numpy as np; assert len(jax.devices()) == 2\n"
        "net = stax.serial(stax.Dense(4), stax.Relu(), stax.Dense(1)); x = np.ones((2, 3), np.float32)\n"
        "def mean(**a): return ntk.monte_carlo_kernel_fn(net.init_fn, net.apply_fn, jax.random.key(0), 3, **a)(x).ntk\n"
        "one = mean(device_count=1)\n"
        "np.testing.assert_allclose(mean(), one, rtol=1e-5)\n"
        "np.testing.assert_allclose(mean(store_on_device=False), one, rtol=1e-5)\n"
    )
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **flags})


def test_any_functions_will_do():
    def init_fn(key, shape):
        return shape, jax.random.normal(key, (shape[-1], 1))

    kernel = ntk.monte_carlo_kernel_fn(init_fn, lambda params, x: x @ params, jax.random.key(0), 2)(
        X, Y, "ntk"
    )
    np.testing.assert_allclose(kernel, X @ Y.T, rtol=1e-5)


def test_bad_arguments_are_named():
    for n_samples in (0, True, [], [3, 0], [1.5]):
        with pytest.raises(ValueError, match="n_samples must be"):
            sampler(n_samples)
    with pytest.raises(ValueError, match="batch_size"):
        sampler(1, batch_size=-1)
    with pytest.raises(ValueError, match="device_count"):
        sampler(1, device_count=1000)
    with pytest.raises(ValueError, match="implementation"):
        sampler(1, implementation="FAST")
    with pytest.raises(ValueError, match=r"rng: .*\nhint: .* key"):
        sampler(1)(X, Y, rng=jax.random.key(0))
    with pytest.raises(ValueError, match="key must be a key of JAX, got 0"):
        ntk.monte_carlo_kernel_fn(lambda key, shape: shape, lambda params, x: x, 0, 1)
    with pytest.raises(ValueError, match="x2 must be an array or a tree of arrays, got a list"):
        sampler(1)(X, [[1.0]])
    with pytest.raises(ValueError, match="axis of examples"):
        sampler(1, batch_size=2, diagonal_axes=(0,))(X)
