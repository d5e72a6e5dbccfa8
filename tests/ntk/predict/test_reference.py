"""Predictions agree with neural-tangents 0.6.5 to 1e-8."""

from __future__ import annotations

import numpy as np
import pytest

from ntk import predict
from tests.ntk.predict.kernels import reference_kernels, references

VALUES = references()
TIMES = {"0": 0, "1": 1, "10": 10, "1000": 1000, "100000": 100000, "None": None}


def close(got, name: str) -> None:
    wanted = VALUES[name]
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=0, atol=1e-8 * max(np.abs(wanted).max(), 1e-300))


def reference_kernel_fn(x1, x2, get):
    rows = f"{x1}_{x1 if x2 is None else x2}"
    kernels = reference_kernels(VALUES, rows)
    return getattr(kernels, get) if isinstance(get, str) else kernels


def cases(kind: str) -> list[tuple[str, str]]:
    return sorted({tuple(name.split("_")[1:3]) for name in VALUES if name.startswith(f"{kind}_")})  # type: ignore[misc]


@pytest.fixture(scope="module", params=["rel", "abs"])
def scale(request: pytest.FixtureRequest) -> str:
    return request.param


def test_ensemble(scale: str) -> None:
    predict_fn = predict.gradient_descent_mse_ensemble(
        reference_kernel_fn, "train", VALUES["y_train"], 1.0, 1e-3, scale == "abs"
    )
    times = [time[1:] for kind, time in cases("ens") if kind == scale]
    assert "None" in times
    for time in times:
        both = predict_fn(TIMES[time], "test", None, compute_cov=True)
        for name in ("nngp", "ntk"):
            close(getattr(both, name).mean, f"ens_{scale}_t{time}_{name}_mean")
            close(getattr(both, name).covariance, f"ens_{scale}_t{time}_{name}_cov")
    if scale == "rel":
        close(predict_fn(1000, None, "ntk"), "ens_rel_t1000_ntk_train_mean")


def test_posteriors(scale: str) -> None:
    predict_fn = predict.gp_inference(
        reference_kernels(VALUES, "train_train"), VALUES["y_train"], 1e-3, scale == "abs"
    )
    cross, prior = (reference_kernels(VALUES, rows) for rows in ("test_train", "test_test"))
    for name in ("nngp", "ntk", "ntkgp"):
        found = predict_fn(name, cross, prior)
        close(found.mean, f"gp_{scale}_{name}_mean")
        close(found.covariance, f"gp_{scale}_{name}_cov")


def test_mean_squared_error(scale: str) -> None:
    predict_fn = predict.gradient_descent_mse(
        VALUES["k_train_train_ntk"], VALUES["y_train"], 1.0, 1e-3, scale == "abs"
    )
    cross = VALUES["k_test_train_ntk"]
    for kind, time in cases("mse"):
        if kind == scale:
            train, test = predict_fn(TIMES[time[1:]], VALUES["fx_train_0"], VALUES["fx_test_0"], cross)
            close(test, f"mse_{scale}_{time}_test")
            close(predict_fn(TIMES[time[1:]], 0.0, 0.0, cross)[1], f"mse0_{scale}_{time}_test")
            if time == "t1000":
                close(train, f"mse_{scale}_{time}_train")


@pytest.mark.parametrize(("momentum", "name"), [(0.0, "max_lr_m0"), (0.9, "max_lr_m09")])
def test_largest_learning_rate(momentum: float, name: str) -> None:
    got = predict.max_learning_rate(VALUES["k_train_train_ntk"], VALUES["y_train"].size, momentum)
    assert got == pytest.approx(float(VALUES[name]), rel=1e-8)
