"""Predictions at training times by the stages are the closed form of `ntk.predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ntk import predict, stax
from pipeline import open_run
from pipeline.errors import GateError, InputError
from tests.stages.conftest import ARCHITECTURE, Runner

TIMES = [1.0, 1e3, 1e6]
BRIEF = {"spectrum": {"method": "none"}}


def test_stages_agree_with_the_closed_form(runner: Runner) -> None:
    document = runner.run(predict={"times": TIMES[::-1]}, **BRIEF)
    run = open_run(runner.folder / "run")
    unit, unit_test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (runner.x, runner.x_test))
    cross = np.asarray(stax.from_spec(ARCHITECTURE).kernel_fn(unit_test, unit, "ntk"))
    flow = predict.gradient_descent_mse(run.gram("ntk").to_numpy(), runner.y)
    wanted = flow(np.array(TIMES), None, 0.0, cross)
    np.testing.assert_allclose(run.predictions_in_training, wanted, rtol=1e-5, atol=1e-7)
    assert run.predictions.shape == runner.y_test.shape
    for entry, time, predictions in zip(document["predict"]["times"], TIMES, wanted, strict=True):
        assert entry["time"] == time and entry["gates"]["coefficients"]["passed"]
        assert entry["rmse"] == pytest.approx(np.sqrt(np.mean((predictions - runner.y_test) ** 2)), rel=1e-5)
    assert "Training times" in (runner.folder / "run/report.html").read_text()
    # Other times touch neither tiles nor solution.
    before = run.solution
    again = runner.run(predict={"times": [1e3]}, **BRIEF)
    assert [entry["time"] for entry in again["predict"]["times"]] == [1e3]
    np.testing.assert_array_equal(open_run(runner.folder / "run").solution, before)
    assert json.loads((runner.folder / "run/metrics.json").read_text())["predict"] == again["predict"]
    assert "times" not in runner.run("predict", **BRIEF)["predict"]


def test_what_cannot_be_reached_is_refused(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.training_times.FLOW_STEPS", 4)
    with pytest.raises(GateError, match=r"after 4 products .* time 1e\+06"):
        runner.run(predict={"times": [1e6]}, **BRIEF)
    for times in ([-1.0], [1.0, 1.0], [float("inf")]):
        with pytest.raises(InputError, match=r"predict\.times"):
            runner.prepare(predict={"times": times})


@pytest.mark.filterwarnings("ignore::pipeline.data.DataWarning")
def test_times_that_rounding_decides_are_refused(runner: Runner) -> None:
    np.save(runner.folder / "x.npy", np.repeat(runner.x[::2], 2, axis=0))
    with pytest.raises(GateError, match=r"time 1e\+20 are known to .* only"):
        runner.run(predict={"times": [10.0, 1e20]}, **BRIEF)
    with pytest.raises(GateError, match=r"(?s)predict\.times: the matrix has an eigenvalue.*float64"):
        smooth = [ARCHITECTURE[0], "Erf", ARCHITECTURE[2]]  # which rounding to float32 makes indefinite
        single = {"architecture": smooth, "precision": "float32"}
        runner.run(
            predict={"times": [1e12]},
            kernel=single,
            solve={"ridge": 1e-2},
            out=str(runner.folder / "single"),
            **BRIEF,
        )
