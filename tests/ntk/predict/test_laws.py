"""What holds between predictions whatever the kernel."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.linalg import LinAlgError

from ntk import predict
from ntk.analytic.results import NngpNtkKernels
from tests.ntk.predict.kernels import M, N, kernel_fn, random_kernels

TRAIN, CROSS, TEST, Y = random_kernels()
ROWS, TEST_ROWS = np.arange(N), np.arange(N, N + M)
MSE = predict.gradient_descent_mse(TRAIN.ntk, Y)


def test_short_times_are_exact_to_first_order() -> None:
    """f_t = η t Θ y / y.size + O(t²), without cancellation down to the smallest t."""
    for t in (1e-300, 1e-30, 1e-15):
        train, test = MSE(t, 0.0, 0.0, CROSS.ntk)
        np.testing.assert_allclose(train, t / Y.size * TRAIN.ntk @ Y, rtol=1e-11)
        np.testing.assert_allclose(test, t / Y.size * CROSS.ntk @ Y, rtol=1e-11)


def test_long_times_reach_infinity() -> None:
    infinite = MSE(None, 0.0, 0.0, CROSS.ntk)
    for t in (1e9, np.inf):
        for got, wanted in zip(MSE(t, 0.0, 0.0, CROSS.ntk), infinite, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(infinite[1], CROSS.ntk @ np.linalg.solve(TRAIN.ntk, Y), rtol=1e-10)


def test_flow_goes_on_where_it_stopped() -> None:
    there = MSE(3.0, 0.5, -0.5, CROSS.ntk)
    for got, wanted in zip(MSE(4.0, *there, CROSS.ntk), MSE(7.0, 0.5, -0.5, CROSS.ntk), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_times_come_first_and_starts_are_broadcast() -> None:
    times = np.array([[0.0, 1.0, 5.0], [2.0, 7.0, np.inf]])
    train, test = MSE(times, 0.0, np.ones(2), CROSS.ntk)
    assert train.shape == (2, 3, *Y.shape) and test.shape == (2, 3, M, 2)
    np.testing.assert_array_equal(test[1, 0], MSE(2.0, None, np.ones(2), CROSS.ntk))
    np.testing.assert_array_equal(test[0, 0], np.ones((M, 2)))


def test_kernels_over_outputs() -> None:
    """Θ ⊗ I with trace_axes=() is Θ with trace_axes=(-1,); traced axes stay where they are in the targets."""
    eye = np.eye(2)
    whole, cross = (np.einsum("ab,cd->abcd", k, eye) for k in (TRAIN.ntk, CROSS.ntk))
    wanted = MSE(4.0, 0.0, 0.0, CROSS.ntk)
    full = predict.gradient_descent_mse(whole, Y, trace_axes=())(4.0, 0.0, 0.0, cross)
    swapped = predict.gradient_descent_mse(TRAIN.ntk, Y.T, trace_axes=0)(4.0, 0.0, 0.0, CROSS.ntk)
    for a, b, c in zip(full, wanted, swapped, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
        np.testing.assert_allclose(np.transpose(c), b, rtol=1e-12)

    def outputs_fn(x1, x2, get):
        kernels = kernel_fn(x1, x2, get)
        wide = [np.einsum("ab,cd->abcd", k, eye) for k in ([kernels] if isinstance(get, str) else kernels)]
        return wide[0] if isinstance(get, str) else NngpNtkKernels(*wide)

    for t in (4.0, None):
        thin = predict.gradient_descent_mse_ensemble(kernel_fn, ROWS, Y)(t, TEST_ROWS, "ntk", True)
        wide = predict.gradient_descent_mse_ensemble(outputs_fn, ROWS, Y, trace_axes=())(
            t, TEST_ROWS, "ntk", True
        )
        np.testing.assert_allclose(wide.mean, thin.mean, rtol=1e-10)
        np.testing.assert_allclose(
            wide.covariance, np.einsum("ab,cd->abcd", thin.covariance, eye), atol=1e-12
        )


@pytest.mark.parametrize("diag_reg", [0.0, 0.1])
@pytest.mark.parametrize("t", [0.0, 2.0, 40.0, None])
def test_ensemble_is_the_distribution_of_its_members(t: float | None, diag_reg: float) -> None:
    """Outputs at time t are affine in those at the start, which are N(0, 𝒦): mean and covariance follow exactly."""
    ensemble = predict.gradient_descent_mse_ensemble(kernel_fn, ROWS, Y, diag_reg=diag_reg)
    got = ensemble(t, TEST_ROWS, "ntk", compute_cov=True)
    joint = np.block([[TRAIN.nngp, CROSS.nngp.T], [CROSS.nngp, TEST.nngp]])
    starts = np.linalg.cholesky(joint)
    targets = np.repeat(Y[:, :1], N + M, axis=1)
    member = predict.gradient_descent_mse(TRAIN.ntk, targets, learning_rate=N + M, diag_reg=diag_reg)
    moved = member(t if t is None else t / 2, starts[:N], starts[N:], CROSS.ntk)[1]
    mean = np.asarray(got.mean)[:, 0]
    deviation = np.asarray(moved) - mean[:, None]
    np.testing.assert_allclose(deviation @ deviation.T, got.covariance, atol=1e-11)
    assert np.linalg.eigvalsh(got.covariance).min() > -1e-12
    assert np.linalg.eigvalsh(ensemble(t, TEST_ROWS, "nngp", True).covariance).min() > -1e-12


@pytest.mark.parametrize("get", ["nngp", "ntk"])
def test_training_rows_as_test_rows(get: str) -> None:
    ensemble = predict.gradient_descent_mse_ensemble(kernel_fn, ROWS, Y)
    for t in (np.array([0.0, 3.0]), None):
        for a, b in zip(ensemble(t, None, get, True), ensemble(t, ROWS, get, True), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_results_by_name() -> None:
    ensemble = predict.gradient_descent_mse_ensemble(kernel_fn, ROWS, Y)
    both = ensemble(1.0, TEST_ROWS, ("ntk", "nngp"), compute_cov=True)
    assert both._fields == ("ntk", "nngp")
    again = pickle.loads(pickle.dumps(both))
    assert type(again) is type(both) and np.array_equal(again.ntk.mean, both.ntk.mean)
    posterior = predict.gp_inference(TRAIN, Y)
    assert posterior(("nngp", "ntk", "ntkgp"), CROSS)._fields == ("nngp", "ntk", "ntkgp")
    mean, covariance = posterior("ntk", None, True)
    np.testing.assert_array_equal(mean, Y)
    assert covariance.shape == (N, N) and not np.any(covariance)


def test_precision_is_the_callers() -> None:
    narrow = predict.gradient_descent_mse(TRAIN.ntk.astype(np.float32), Y)(2.0)
    assert narrow.dtype == np.float32 and isinstance(narrow, jax.Array)
    np.testing.assert_allclose(narrow, MSE(2.0), rtol=1e-5, atol=1e-6)
    assert MSE(2.0).dtype == np.float64
    with jax.enable_x64(True):
        assert isinstance(MSE(2.0), jax.Array)


def test_predictions_are_functions_of_traced_arguments() -> None:
    with jax.enable_x64(True):
        cross, t = jnp.asarray(CROSS.ntk), 3.0
        jitted = jax.jit(lambda k, s: MSE(s, None, 0.0, k))
        np.testing.assert_allclose(jitted(cross, t), MSE(t, None, 0.0, CROSS.ntk), rtol=1e-12)
        slope = jax.grad(lambda s: MSE(s, None, 0.0, cross).sum())(t)
        step = 1e-4
        numeric = (
            np.sum(MSE(t + step, None, 0.0, CROSS.ntk)) - np.sum(MSE(t - step, None, 0.0, CROSS.ntk))
        ) / (2 * step)
        assert float(slope) == pytest.approx(float(numeric), rel=1e-6)
        posterior = predict.gp_inference(TRAIN, Y)
        traced = jax.jit(lambda k, p: posterior("ntk", NngpNtkKernels(*k), NngpNtkKernels(*p)))(
            tuple(CROSS), tuple(TEST)
        )
        np.testing.assert_allclose(traced.covariance, posterior("ntk", CROSS, TEST).covariance, atol=1e-12)


def test_singular_kernels_are_named_and_never_mended() -> None:
    twice = np.repeat(np.arange(N // 2), 2)
    singular = TRAIN.ntk[np.ix_(twice, twice)]
    flow = predict.gradient_descent_mse(singular, Y)
    for t in (None, np.inf):
        with pytest.raises(LinAlgError, match=r"(singular|positive definite).*\nhint: diag_reg="):
            flow(t, None, 0.0, CROSS.ntk)
    # Any finite time is well defined, and continuous in the kernel.
    t = 50.0
    small = predict.gradient_descent_mse(singular, Y, diag_reg=1e-13)(t, None, 0.0, CROSS.ntk)
    np.testing.assert_allclose(flow(t, None, 0.0, CROSS.ntk), small, rtol=1e-9, atol=1e-10)
    indefinite = TRAIN.ntk - 1.5 * np.eye(N)
    with pytest.raises(LinAlgError, match="indefinite") as caught:
        predict.gradient_descent_mse(indefinite, Y)(1.0)
    # The regulariser that the message names does.
    remedy = float(str(caught.value).split("diag_reg=")[1].split()[0])
    sound = predict.gradient_descent_mse(indefinite, Y, diag_reg=remedy)
    assert np.isfinite(sound(None, None, 0.0, CROSS.ntk)).all() and np.isfinite(sound(1.0)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_train_train": np.where(np.eye(N, k=3), 9.0, TRAIN.ntk)}, "not symmetric"),
        ({"k_train_train": np.where(np.eye(N), np.nan, TRAIN.ntk)}, r"entry \(0, 0\) is nan"),
        ({"k_train_train": TRAIN.ntk[:5, :5]}, "shape"),
        ({"k_train_train": TRAIN.ntk[0]}, "in pairs"),
        ({"y_train": np.where(Y > 1, np.inf, Y)}, "y_train is not finite"),
        ({"diag_reg": -1.0}, "diag_reg"),
        ({"trace_axes": (0, 1)}, "trace_axes"),
        ({"trace_axes": 2}, "no such axis"),
        ({"trace_axes": 0.5}, "trace_axes must be an integer"),
        ({"k_train_train": TRAIN}, "must be one kernel.*\nhint: k.ntk"),
        ({"k_train_train": 1j * TRAIN.ntk}, "k_train_train must be an array of real numbers, got complex128"),
        ({"k_train_train": "ntk"}, "k_train_train must be an array of real numbers, got 'ntk'"),
        ({"y_train": 1j * Y}, "y_train must be .* real"),
        ({"y_train": None}, "y_train must be .* got None"),
        ({"y_train": np.ma.masked_array(Y, Y > 0)}, "no masked entries"),
        ({"y_train": Y[:, 0]}, r"\nhint: y\[:, None\]"),
        ({"learning_rate": "1"}, "learning_rate must be positive and finite, got '1'"),
    ],
)
def test_what_is_wrong_is_said(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        predict.gradient_descent_mse(**({"k_train_train": TRAIN.ntk, "y_train": Y} | change))(1.0)


def test_lists_are_arrays() -> None:
    lists = predict.gradient_descent_mse(TRAIN.ntk.tolist(), Y.tolist())([1.0, 2.0], 0, 0, CROSS.ntk.tolist())
    for got, expected in zip(lists, MSE(np.array([1.0, 2.0]), 0.0, 0.0, CROSS.ntk), strict=True):
        assert np.array_equal(got, expected)
    assert np.array_equal(predict.gp_inference(TRAIN.ntk.tolist(), Y.tolist())("ntk"), Y)
    flow = predict.gradient_descent(lambda f, y: jnp.sum((f - y) ** 2), TRAIN.ntk.tolist(), Y.tolist())
    assert flow(0.0).shape == Y.shape


def test_what_is_asked_must_make_sense() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        MSE(-1.0)
    with pytest.raises(ValueError, match="nothing to predict"):
        MSE(1.0, None)
    with pytest.raises(ValueError, match="need k_test_train"):
        MSE(1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="columns"):
        MSE(1.0, None, 0.0, CROSS.ntk[:, :5])
    with pytest.raises(ValueError, match=r"k_test_train must be one kernel.*\nhint: k.ntk"):
        MSE(1.0, 0.0, 0.0, CROSS)
    with pytest.raises(ValueError, match=r"fx_train_0 must be a number or of shape \(12, 2\), got \(7, 2\)"):
        MSE(1.0, np.zeros((7, 2)))
    with pytest.raises(ValueError, match=r"fx_test_0 must be a number or of shape \(4, 2\), got \(7, 2\)"):
        MSE(1.0, 0.0, np.zeros((7, 2)), CROSS.ntk)
    ensemble = predict.gradient_descent_mse_ensemble(kernel_fn, ROWS, Y)
    for flow in (MSE, ensemble, predict.gradient_descent(lambda f, y: jnp.sum(f * y), TRAIN.ntk, Y)):
        with pytest.raises(ValueError, match=r"t must be a time or several, got an empty array"):
            flow([])
    with pytest.raises(ValueError, match=r"kernel_fn must be a function, got ndarray"):
        predict.gradient_descent_mse_ensemble(TRAIN.ntk, ROWS, Y)
    for size, momentum in ((0, 0.0), (3, 1.0)):
        with pytest.raises(ValueError, match="momentum must be in"):
            predict.max_learning_rate(TRAIN.ntk, size, momentum)
    for get in ("ntkk", (), 3, TRAIN.ntk, ("ntk", "ntk")):
        with pytest.raises(ValueError, match="get must be"):
            predict.gp_inference(TRAIN, Y)(get)
    with pytest.raises(ValueError, match=r"k_test_test must be of 4 rows"):
        predict.gp_inference(TRAIN, Y)("nngp", CROSS, TRAIN)
    with pytest.raises(ValueError, match="nngp beside ntk"):
        predict.gp_inference(TRAIN.ntk, Y)("ntk", CROSS.ntk, TEST.ntk)


def test_keyword_arguments_reach_the_kernel() -> None:
    seen = []

    def recording(x1, x2, get, *, params, keys):
        seen.append((params, keys))
        return kernel_fn(x1, x2, get)

    train, test = np.zeros(2), np.ones(2)
    ensemble = predict.gradient_descent_mse_ensemble(recording, ROWS, Y, params=train, keys=(train, train))
    ensemble(1.0, TEST_ROWS, "ntk", compute_cov=True, keys=(test, test))
    assert all(params is train for params, _ in seen)
    sides = {tuple(float(key[0]) for key in keys) for _, keys in seen}
    assert sides == {(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)}
    with pytest.raises(ValueError, match="must agree"):
        ensemble(1.0, TEST_ROWS, "ntk", flag=True)
