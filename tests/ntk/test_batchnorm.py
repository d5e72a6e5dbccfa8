"""BatchNorm: the kernel of whole batches, as finite networks have it, and where it is refused."""

import jax
import numpy as np
import pytest

from ntk import stax
from ntk.analytic import TileKernel, cost
from ntk.errors import ArchitectureError
from ntk.stax import BatchNorm, Dense, Dropout, Relu, serial

B_STD = 0.3
NET = serial(Dense(16, 1.4, 0.2), Relu(), BatchNorm(), Dense(1, 1.2, B_STD))
BEFORE = serial(Dense(16, 1.4, 0.2), Relu())


def rows(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 5))


def test_the_kernel_is_the_centred_one_over_the_mean_variance():
    x, y = rows(6), rows(4, seed=1)
    k, k11, k22 = BEFORE.kernel_fn(x, y), BEFORE.kernel_fn(x).nngp, BEFORE.kernel_fn(y).nngp
    h1, h2 = np.eye(6) - 1 / 6, np.eye(4) - 1 / 4
    s = [np.sqrt(np.trace(h @ own @ h) / len(h) + 1e-5) for h, own in ((h1, k11), (h2, k22))]
    nngp = 1.2**2 * (h1 @ k.nngp @ h2) / s[0] / s[1] + B_STD**2
    got = NET.kernel_fn(x, y)
    np.testing.assert_allclose(got.nngp, nngp, rtol=1e-12)
    np.testing.assert_allclose(got.ntk, nngp + 1.2**2 * (h1 @ k.ntk @ h2) / s[0] / s[1], rtol=1e-12)


def test_a_batch_with_itself_is_symmetric_and_without_constant_mode():
    """The mean of all entries is b² (Jacot et al. 2019, section 3)."""
    x = rows(40)
    own, both = NET.kernel_fn(x), NET.kernel_fn(x, x)
    for name in ("nngp", "ntk"):
        kernel = np.asarray(getattr(own, name))
        assert np.array_equal(kernel, kernel.T)
        assert np.linalg.eigvalsh(kernel)[0] > -1e-13 * np.trace(kernel)
        np.testing.assert_allclose(np.mean(kernel), B_STD**2, rtol=1e-12)
        np.testing.assert_allclose(getattr(both, name), kernel, rtol=1e-9, atol=1e-12)
        narrow = getattr(NET.kernel_fn(x.astype(np.float32)), name)
        assert narrow.dtype == np.float32
        np.testing.assert_allclose(narrow, kernel, atol=1e-5 * np.max(kernel))


def test_batches_may_be_normalised_twice_and_linear_layers_follow():
    x = rows(5)
    twice = serial(NET, BatchNorm(), Dense(4), Dropout(0.5), Dense(1))
    once = serial(BEFORE, BatchNorm())
    k = NET.kernel_fn(x, None, "nngp")
    centred = k - k.mean(0) - k.mean(0)[:, None] + k.mean()
    expected = centred / (np.trace(centred) / 5 + 1e-5)
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(twice.kernel_fn(x, None, "nngp")[off], expected[off], rtol=1e-10)
    np.testing.assert_allclose(np.diag(twice.kernel_fn(x, None, "nngp")), 2 * np.diag(expected), rtol=1e-10)
    assert np.trace(once.kernel_fn(x, None, "nngp")) == pytest.approx(5, rel=1e-4)


def test_traced_batches_agree_and_differentiate():
    x = rows(4).astype(np.float32)
    value, slope = jax.jit(jax.value_and_grad(lambda x: (NET.kernel_fn(x, None, "ntk") ** 2).sum()))(x)
    assert value == pytest.approx(float((NET.kernel_fn(x, None, "ntk") ** 2).sum()), rel=1e-4)
    assert np.isfinite(slope).all() and slope.any()


def test_the_textbook_normalises_each_channel_of_finite_networks():
    init_fn, apply_fn, _ = BatchNorm(eps=0.0, variance="channel")
    x = rows(50).astype(np.float32) * np.arange(1, 6, dtype=np.float32) + 3
    z = np.asarray(apply_fn(init_fn(jax.random.key(0), x.shape)[1], x))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-4)


REFUSED = {
    "nonlinearity after": (serial(NET, Relu(), Dense(1)), "must come after the last nonlinearity"),
    "in a branch": (
        serial(
            BEFORE, stax.FanOut(2), stax.parallel(serial(BatchNorm(), Dense(3)), Dense(3)), stax.FanInSum()
        ),
        "BatchNorm in one of its branches",
    ),
    "variance of a channel": (serial(BEFORE, BatchNorm(variance="channel"), Dense(1)), "stays random"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_other_kernels_are_refused(why):
    network, match = REFUSED[why]
    with pytest.raises(ArchitectureError, match=match):
        network.kernel_fn(rows(3))


def test_there_are_no_tiles_and_no_plan():
    for refuse in (lambda: cost(NET, (5,)), lambda: TileKernel(NET, (5,), tile=4)):
        with pytest.raises(ArchitectureError, match="no tiles of the kernel"):
            refuse()


def test_positions_are_refused():
    with pytest.raises(ArchitectureError, match=r"architecture\[1\] \(BatchNorm\) takes vectors"):
        serial(stax.Conv(4, (2, 2)), BatchNorm(), stax.Flatten()).kernel_fn(np.zeros((2, 4, 4, 1)))
