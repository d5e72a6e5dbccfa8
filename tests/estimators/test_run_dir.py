"""A run directory changes nothing for those who use an estimator: not what it takes, not what it predicts, whatever
happened in the directory since."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from pipeline.errors import GateError, InputError
from pipeline.estimators import NTKClassifier, NTKGaussianProcess, NTKRegressor
from pipeline.stages import solve
from pipeline.stages.session import Session
from pipeline.store.lease import Lease

RNG = np.random.default_rng(0)
X, X_NEW = RNG.standard_normal((30, 4)), RNG.standard_normal((6, 4))
Y = np.sin(X[:, 0]) + X[:, 1]


def stored(directory: Path, below: str) -> dict[Path, int]:
    """When each file of the arrays below a name was written."""
    (folder,) = directory.iterdir()
    files = (folder / "run/store.zarr" / below).rglob("*")
    return {file: file.stat().st_mtime_ns for file in files if file.is_file()}


def test_predictions_need_nothing_but_the_estimator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    first, second = (NTKRegressor(run_dir="runs", cluster="serial").fit(X, y) for y in (Y, -3 * Y))
    before = first.predict(X_NEW)
    monkeypatch.chdir(tmp_path)
    files = stored(tmp_path / "here/runs", "solution")
    np.testing.assert_allclose(second.predict(X_NEW), -3 * before, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(first.predict(X_NEW), before)
    assert stored(tmp_path / "here/runs", "solution") == files, "a prediction solved again"
    (tmp_path / "first").write_bytes(pickle.dumps((first, X_NEW)))
    code = (
        "import pickle, sys; model, x = pickle.load(open('first', 'rb')); "
        "sys.stdout.buffer.write(model.predict(x).tobytes())"
    )
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=tmp_path)
    assert elsewhere.stdout == before.tobytes()
    shutil.rmtree(tmp_path / "here/runs")
    np.testing.assert_array_equal(first.predict(X_NEW), before)


def test_a_prediction_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (NTKRegressor(run_dir=tmp_path, cluster="serial").fit(X, y) for y in (Y, -Y))
    rows = RNG.standard_normal((200, 4))
    before = first.predict(rows)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    blocks = []
    for _ in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Session, "remove", stop)  # when everything is computed
            first.predict(rows)
        blocks.append(stored(tmp_path, "predictions"))
    assert len(blocks[0]) > 2 and blocks[0] == blocks[1]
    np.testing.assert_array_equal(second.predict(rows), -before)
    np.testing.assert_array_equal(first.predict(rows), before)
    assert not any("c" in file.parts[-4:] for file in stored(tmp_path, "predictions"))


@pytest.mark.parametrize("directory", [False, True], ids=["memory", "directory"])
def test_a_fit_keeps_its_own_data(tmp_path: Path, directory: bool) -> None:
    x, y = X.copy(), Y.copy()
    process = NTKGaussianProcess(run_dir=tmp_path if directory else None, cluster="serial").fit(x, y)
    before, likelihood = process.predict(X_NEW), process.log_marginal_likelihood()
    x *= 2
    y += 1
    np.testing.assert_array_equal(process.predict(X_NEW), before)
    assert process.log_marginal_likelihood() == likelihood


def test_kernels_of_one_network_stay_beside_each_other(tmp_path: Path) -> None:
    process = NTKGaussianProcess(run_dir=tmp_path, cluster="serial").fit(X, Y)
    mean, deviation = process.predict(X_NEW, return_std=True)
    regressor = NTKRegressor(run_dir=tmp_path, cluster="serial", ridge=0.1).fit(X, 2 * Y)
    tiles = stored(tmp_path, "gram")
    again, certain = process.predict(X_NEW, return_std=True)
    np.testing.assert_array_equal(again, mean)
    np.testing.assert_allclose(certain, deviation, rtol=1e-9)
    np.testing.assert_allclose(
        regressor.predict(X_NEW), NTKRegressor(ridge=0.1).fit(X, 2 * Y).predict(X_NEW), rtol=1e-9, atol=1e-12
    )
    assert len({file.parents[2].name for file in tiles if file.parent.parent.name == "c"}) == 2
    assert stored(tmp_path, "gram") == tiles


def test_a_folder_in_use_says_so(tmp_path: Path) -> None:
    model = NTKRegressor(run_dir=tmp_path, cluster="serial").fit(X, Y)
    before = model.predict(X_NEW)
    (folder,) = tmp_path.iterdir()
    with Lease(folder / "run"):
        for work in (lambda: model.predict(X_NEW), lambda: clone(model).fit(X, 2 * Y)):
            with pytest.raises(InputError, match=r"(?s)is in use: .*hint: wait"):
                work()
    np.testing.assert_array_equal(model.predict(X_NEW), before)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize(
    ("model", "x", "y"),
    [
        (NTKClassifier(), X, np.repeat("only", len(X))),
        (NTKClassifier(), X, np.arange(len(X))),
        (NTKClassifier(), X[:1], ["only"]),
        (NTKRegressor(), X[:1], Y[:1]),
        (NTKRegressor(), np.asfortranarray(X), 0 * Y),
        (NTKRegressor(shape=(np.int64(4),)), X, Y),
        (NTKRegressor([{"Dense": {"out_dim": np.int64(8), "W_std": np.float32(1.5)}}, "Relu"]), X, Y),
        (NTKGaussianProcess(ridge=np.float16(0.5)), X[:1], Y[:1]),
    ],
    ids=["one class", "a class a row", "one label", "one row", "zeros", "shape", "network", "one row's variances"],
)  # fmt: skip
def test_what_memory_takes_a_directory_takes(tmp_path: Path, model: Any, x: Any, y: Any) -> None:
    here, there = (clone(model).set_params(run_dir=where, cluster="serial") for where in (None, tmp_path))
    here.fit(x, y), there.fit(x, y)
    np.testing.assert_allclose(there.dual_coef_, here.dual_coef_, rtol=1e-9, atol=1e-12)
    if isinstance(model, NTKClassifier):
        np.testing.assert_array_equal(there.predict(x), here.predict(x))
        np.testing.assert_allclose(
            there.decision_function(X_NEW), here.decision_function(X_NEW), rtol=1e-9, atol=1e-12
        )
    else:
        np.testing.assert_allclose(there.predict(X_NEW), here.predict(X_NEW), rtol=1e-9, atol=1e-12)
    if isinstance(model, NTKGaussianProcess):
        np.testing.assert_allclose(
            there.predict(X_NEW, return_cov=True)[1], here.predict(X_NEW, return_cov=True)[1], atol=1e-9
        )


@pytest.mark.parametrize("directory", [False, True], ids=["memory", "directory"])
def test_overflow_is_named(tmp_path: Path, directory: bool) -> None:
    model = NTKGaussianProcess(run_dir=tmp_path if directory else None, cluster="serial")
    with pytest.raises(GateError, match=r"(?s)nngp.*K\[0, 0\] = .*hint: scale"):
        clone(model).fit(1e200 * X, Y)
    model.fit(X, Y)
    rows = X_NEW.copy()
    rows[2] *= 1e200
    with pytest.raises(
        InputError, match=r"(?s)outputs are not finite for 1 of 6 rows, .*row 2: .*hint: scale"
    ):
        model.predict(rows)
    # Its kernels with the training rows are within bounds, its variance exp(2 |x|² / 4) is not.
    growing = clone(model).set_params(
        architecture=[{"Dense": {"out_dim": 1}}, "Exp", {"Dense": {"out_dim": 1}}]
    )
    rows[2] = 19.5
    growing.fit(X, Y).predict(rows)
    with pytest.raises(InputError, match=r"variances are not finite for .* row 2: "):
        growing.predict(rows, return_std=True)


@pytest.mark.parametrize("scale", [1e300, 1e-120])
def test_targets_whose_squares_leave_the_range_are_refused_by_name(tmp_path: Path, scale: float) -> None:
    with pytest.raises(InputError, match=r"(?s)^y: the largest value of column 0 .*hint: scale the targets"):
        NTKRegressor(run_dir=tmp_path, cluster="serial").fit(X, scale * Y)


def test_a_determinant_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = solve.choose
    monkeypatch.setattr(solve, "choose", lambda *a: dataclasses.replace(choose(*a), method="cg"))
    process = NTKGaussianProcess(run_dir=tmp_path, cluster="serial").fit(X, Y)
    with pytest.raises(InputError, match=r"(?s)solved by cg.*hint: "):
        process.log_marginal_likelihood()
