"""Estimators against dense linear algebra, and a fit in memory against the same fit by the stages."""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ntk import predict, stax
from pipeline.errors import GateError, InputError
from pipeline.estimators import NTKClassifier, NTKGaussianProcess, NTKRegressor, in_directory
from pipeline.estimators.problem import ARCHITECTURE, NEEDS
from pipeline.plan.memory_solve import dense_regression

RNG = np.random.default_rng(0)
X, X_NEW = RNG.standard_normal((60, 5)), RNG.standard_normal((11, 5))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
LABELS = np.array(["low", "middle", "high"])[np.digitize(X[:, 0] + X[:, 1], [-0.7, 0.7])]
RIDGE = 1e-3


def dense(kernel: str) -> tuple[np.ndarray, np.ndarray]:
    kernel_fn = stax.from_spec(list(ARCHITECTURE)).kernel_fn
    k = np.asarray(kernel_fn(X, None, kernel))
    return k + RIDGE * np.trace(k) / len(k) * np.eye(len(k)), np.asarray(kernel_fn(X_NEW, X, kernel))


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
def test_regression_is_dense_linear_algebra(kernel: str) -> None:
    model = NTKRegressor(kernel=kernel, ridge=RIDGE).fit(X, Y)
    matrix, cross = dense(kernel)
    np.testing.assert_allclose(
        model.predict(X_NEW), cross @ np.linalg.solve(matrix, Y), rtol=1e-9, atol=1e-11
    )
    one = NTKRegressor(kernel=kernel, ridge=RIDGE).fit(X, Y[:, 0])
    np.testing.assert_allclose(one.predict(X_NEW), model.predict(X_NEW)[:, 0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("posterior", "mode"), [("nngp", "nngp"), ("ensemble", "ntk"), ("ntkgp", "ntkgp")])
def test_gaussian_process_is_the_closed_form(posterior: str, mode: str) -> None:
    model = NTKGaussianProcess(posterior=posterior, ridge=RIDGE).fit(X, Y)
    kernel_fn = stax.from_spec(list(ARCHITECTURE)).kernel_fn
    wanted = predict.gp_inference(kernel_fn(X), Y, RIDGE)(mode, kernel_fn(X_NEW, X), kernel_fn(X_NEW))
    mean, covariance = model.predict(X_NEW, return_cov=True)
    np.testing.assert_allclose(mean, wanted.mean, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(covariance, wanted.covariance, atol=1e-11)
    np.testing.assert_allclose(model.predict(X_NEW, return_std=True)[1] ** 2, np.diag(covariance), atol=1e-12)


def test_marginal_likelihood_is_the_density_of_the_targets() -> None:
    from scipy.stats import multivariate_normal

    model = NTKGaussianProcess(ridge=RIDGE).fit(X, Y)
    density = multivariate_normal(np.zeros(len(X)), dense("nngp")[0])
    wanted = sum(density.logpdf(y) for y in Y.T)
    assert model.log_marginal_likelihood() == pytest.approx(wanted, rel=1e-9)


CASES: list[tuple[Any, np.ndarray]] = [
    (NTKRegressor(ridge=RIDGE), Y),
    (NTKClassifier(ridge=RIDGE, kernel="nngp"), LABELS),
    (NTKGaussianProcess(ridge=RIDGE, posterior="ensemble"), Y[:, 0]),
]


@pytest.mark.parametrize(("model", "y"), CASES, ids=lambda case: type(case).__name__)
def test_stages_agree_with_memory(
    tmp_path: Path, model: Any, y: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = clone(model).fit(X, y)
    there = clone(model).set_params(run_dir=tmp_path / "runs", cluster="serial").fit(X, y)
    scale = np.abs(here.dual_coef_).max()
    np.testing.assert_allclose(there.dual_coef_, here.dual_coef_, rtol=1e-8, atol=1e-9 * scale)
    if isinstance(model, NTKClassifier):
        np.testing.assert_array_equal(there.predict(X_NEW), here.predict(X_NEW))
        np.testing.assert_allclose(there.decision_function(X_NEW), here.decision_function(X_NEW), atol=1e-9)
    else:
        np.testing.assert_allclose(there.predict(X_NEW), here.predict(X_NEW), atol=1e-9)
    if isinstance(model, NTKGaussianProcess):
        for a, b in zip(
            there.predict(X_NEW, return_cov=True), here.predict(X_NEW, return_cov=True), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-9)  # by the factor that was kept
        monkeypatch.setattr(in_directory, "kept_solve", lambda *_: None)
        np.testing.assert_allclose(
            there.predict(X_NEW, return_cov=True)[1], here.predict(X_NEW, return_cov=True)[1], atol=1e-6
        )
        assert there.log_marginal_likelihood() == pytest.approx(here.log_marginal_likelihood(), rel=1e-9)
    again = pickle.loads(pickle.dumps(there))
    np.testing.assert_array_equal(again.predict(X_NEW[:3]), there.predict(X_NEW[:3]))


def test_another_ridge_reuses_the_tiles(tmp_path: Path) -> None:
    first = NTKRegressor(run_dir=tmp_path, cluster="serial", ridge=RIDGE).fit(X, Y)
    before = first.predict(X_NEW)
    (folder,) = tmp_path.iterdir()
    tiles = {file: file.stat().st_mtime_ns for file in (folder / "run/store.zarr/gram").rglob("c/*/*")}
    second = NTKRegressor(run_dir=tmp_path, cluster="serial", ridge=1e-1).fit(X, Y)
    assert list(tmp_path.iterdir()) == [folder] and tiles
    assert all(file.stat().st_mtime_ns == time for file, time in tiles.items())
    assert not np.allclose(second.predict(X_NEW), before)
    # The first still predicts what it did: its solution is found again.
    np.testing.assert_allclose(first.predict(X_NEW), before, rtol=1e-12)
    NTKRegressor(run_dir=tmp_path, cluster="serial").fit(X[:40], Y[:40])
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("model", "y", "other"),
    [
        (NTKRegressor(ridge=RIDGE), Y, 2 * Y),
        (NTKClassifier(ridge=RIDGE), LABELS, LABELS[::-1].copy()),
        (NTKGaussianProcess(ridge=RIDGE), Y, 3 * Y[:, :1]),
    ],
    ids=lambda case: type(case).__name__,
)
def test_fits_that_share_a_directory_keep_apart(tmp_path: Path, model: Any, y: Any, other: Any) -> None:
    model = clone(model).set_params(run_dir=tmp_path, cluster="serial")
    first = clone(model).fit(X, y)
    before = first.predict(X_NEW)
    (folder,) = tmp_path.iterdir()
    tiles = {file: file.stat().st_mtime_ns for file in (folder / "run/store.zarr/gram").rglob("c/*/*")}
    second = clone(model).set_params(ridge=2 * RIDGE).fit(X, other)
    alone = clone(model).set_params(ridge=2 * RIDGE, run_dir=None).fit(X, other)
    mixed = clone(NTKRegressor()).set_params(run_dir=tmp_path, cluster="serial").fit(X, Y[:, 1])
    for _ in range(2):
        assert np.array_equal(pickle.loads(pickle.dumps(first)).predict(X_NEW), before)
        if isinstance(model, NTKClassifier):
            np.testing.assert_array_equal(second.predict(X_NEW), alone.predict(X_NEW))
        else:
            np.testing.assert_allclose(second.predict(X_NEW), alone.predict(X_NEW), rtol=1e-8, atol=1e-10)
        assert mixed.predict(X_NEW[:4]).shape == (4,)
    if isinstance(model, NTKGaussianProcess):
        np.testing.assert_allclose(
            second.predict(X_NEW, return_cov=True)[1], alone.predict(X_NEW, return_cov=True)[1], atol=1e-9
        )
        assert second.log_marginal_likelihood() == pytest.approx(alone.log_marginal_likelihood(), rel=1e-9)
    assert tiles and all(file.stat().st_mtime_ns == time for file, time in tiles.items())


def test_outputs_one_by_one_in_a_directory_are_those_of_all(tmp_path: Path) -> None:
    model = NTKRegressor(run_dir=tmp_path, cluster="serial", ridge=RIDGE)
    together, apart = clone(model).fit(X, Y), MultiOutputRegressor(clone(model)).fit(X, Y)
    np.testing.assert_allclose(apart.predict(X_NEW), together.predict(X_NEW), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("ridge", [np.float32(1e-3), np.int64(1), 1])
def test_numbers_of_numpy_are_ridges(ridge: Any) -> None:
    given, plain = NTKRegressor(ridge=ridge).fit(X, Y), NTKRegressor(ridge=float(ridge)).fit(X, Y)
    np.testing.assert_array_equal(given.dual_coef_, plain.dual_coef_)


def test_grid_search_in_a_pipeline() -> None:
    digits = load_digits()
    x, y = digits.data[:240], digits.target[:240]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), NTKClassifier()),
        {"ntkclassifier__ridge": [1e-4, 1e-2], "ntkclassifier__kernel": ["ntk"]},
        cv=2,
    ).fit(x[:200], y[:200])
    assert search.best_score_ > 0.8 and search.score(x[200:], y[200:]) > 0.8
    assert search.best_estimator_[-1].get_params()["ridge"] == search.best_params_["ntkclassifier__ridge"]


def test_images_and_layers() -> None:
    """`shape` gives flat rows back their form; an architecture may be a layer or its specification."""
    net = stax.serial(stax.Conv(8, (3, 3), padding="SAME"), stax.Relu(), stax.Flatten(), stax.Dense(1))
    x = RNG.standard_normal((12, 16))
    model = NTKRegressor(net, shape=(4, 4, 1), ridge=RIDGE).fit(x, x[:, 0])
    k = np.asarray(net.kernel_fn(x.reshape(-1, 4, 4, 1), None, "ntk"))
    wanted = k @ np.linalg.solve(k + RIDGE * np.trace(k) / 12 * np.eye(12), x[:, 0])
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-8, atol=1e-10)
    again = NTKRegressor(net.to_spec(), shape=(4, 4, 1), ridge=RIDGE).fit(x, x[:, 0])
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_single_precision_is_near() -> None:
    narrow, wide = (NTKRegressor(precision=p, ridge=1e-2).fit(X, Y) for p in ("float32", "float64"))
    np.testing.assert_allclose(narrow.predict(X_NEW), wide.predict(X_NEW), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (NTKRegressor(kernel="rbf"), "kernel must be"),
        (NTKRegressor(ridge=-1.0), "ridge must be"),
        (NTKRegressor(ridge=True), "ridge must be"),
        (NTKRegressor(ridge=np.float64("nan")), "ridge must be"),
        (NTKRegressor(precision="half"), "precision must be"),
        (NTKRegressor(ridge=np.True_), "ridge must be"),
        (NTKRegressor(ridge=10**400), "ridge must be"),
        (NTKRegressor(shape=(2, 2)), "4 entries, X has 5 features"),
        (NTKRegressor(shape=(-1, -5)), "shape must be"),
        (NTKRegressor(shape=(5.0,)), "shape must be"),
        (NTKRegressor(shape=(True, 5)), "shape must be"),
        (NTKRegressor(shape=5), "shape must be"),
        (NTKRegressor(["Reluu"]), "Reluu"),
        (NTKGaussianProcess(posterior="ntk"), "posterior must be"),
    ],
)
def test_wrong_parameters_are_named(model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.fit(X, Y)


@pytest.mark.parametrize("posterior", ["ntkgp", "ensemble"])
def test_memory_is_as_planned(posterior: str) -> None:
    n = 512
    x, model = RNG.standard_normal((n, 5)), NTKGaussianProcess(posterior=posterior)
    model.fit(x, x)  # compiles
    tracemalloc.start()
    model.fit(x, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    planned = dict(dense_regression(n, len(NEEDS[posterior])).parts)
    assert peak <= planned["kernels"] + planned["factorisation"] + 2**20


def test_singular_and_oversized_are_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"(?s)ntk.*hint: ridge="):
        NTKRegressor(ridge=0.0).fit(np.repeat(X[:10], 2, axis=0), np.repeat(Y[:10], 2, axis=0))
    process = NTKGaussianProcess(run_dir=tmp_path, cluster="serial", ridge=1e-12).fit(X, Y)
    monkeypatch.setattr(in_directory, "COVARIANCE_PRODUCTS", 3)
    monkeypatch.setattr(in_directory, "kept_solve", lambda *_: None)
    with pytest.raises(GateError, match="after 3 products"):
        process.predict(X_NEW, return_std=True)
    with pytest.raises(InputError, match="not both"):
        process.predict(X_NEW, return_std=True, return_cov=True)
    monkeypatch.setattr("pipeline.plan.resources.machine_memory", lambda: 10**8)
    with pytest.raises(InputError, match="run_dir"):
        NTKRegressor().fit(X, Y)
