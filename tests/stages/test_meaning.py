"""Learning curve, training and comparison of a run: stored for anyone, bounded in memory, equal when repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import open_run
from pipeline.config.cluster import SerialCluster
from pipeline.config.load import load_run
from pipeline.plan import memory_spectrum
from pipeline.stages.opening import open_prepared
from pipeline.stages.order import run_stages
from pipeline.stages.prepare import prepare
from pipeline.stages.spectrum_meaning import CURVE, FLOW, curve_array, curve_sizes, flow_array, sampled_rows
from tests.stages.conftest import Runner

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_run_predicts_its_learning_curve_and_stores_it(runner: Runner) -> None:
    figures = runner.run()["spectrum"]["ntk"]
    run = open_run(runner.folder / "run")
    matrix = run.gram().to_numpy()
    sizes = run.store.read_all(curve_array("ntk", "size"))
    np.testing.assert_array_equal(sizes, curve_sizes(len(matrix)))
    curve = figures["learning_curve"]
    assert figures["sample_rows"] == len(matrix)
    exact = np.linalg.eigvalsh(matrix)
    assert abs(figures["lambda_max"] - exact[-1]) <= figures["lambda_error"] + 1e-14 * exact[-1]
    assert figures["lambda_error"] < 1e-12 * exact[-1]
    assert curve["measured"] == run.store.read_all(curve_array("ntk", "measured")).tolist()
    # Seventy rows: the theory of large matrices holds roughly already.
    assert curve["largest_deviation"] < 0.3
    assert all(bound > 0 for bound in figures["generalisation_bound"])
    y = runner.y
    expected = np.diag(y.T @ np.linalg.solve(matrix, y))
    np.testing.assert_allclose(figures["label_complexity"], expected, rtol=1e-6)
    train = run.store.read_all(flow_array("ntk", "train"))
    assert np.all(np.diff(train) <= 0)
    page = (runner.folder / "run/report.html").read_text()
    for title in ("Learning curve, NTK", "Errors during training, NTK", "Leading eigenvectors, NTK"):
        assert title in page


def test_arrays_say_what_they_are(runner: Runner) -> None:
    runner.run()
    store = runner.folder / "run/store.zarr"
    for name in [curve_array("ntk", what) for what in CURVE] + [flow_array("ntk", what) for what in FLOW]:
        metadata = json.loads((store / name / "zarr.json").read_text())
        assert len(metadata["dimension_names"]) == 1
        assert metadata["attributes"]["units"]
        assert metadata["attributes"]["long_name"]


def test_without_labels_there_is_no_learning_curve(runner: Runner) -> None:
    document = runner.document()
    data = {"train": {"x": document["data"]["train"]["x"]}, "task": "none"}
    figures = runner.run(data=data)["spectrum"]["ntk"]
    assert "learning_curve" not in figures
    assert "Leading eigenvectors" in (runner.folder / "run/report.html").read_text()


def test_the_sample_fits_the_memory_it_is_given() -> None:
    for limit in (10**8, 5 * 10**8, 10**9, 10**11):
        rows = memory_spectrum.population_rows(10**6, limit)
        assert rows <= memory_spectrum.POPULATION_ROWS
        assert rows == 0 or memory_spectrum.population(rows).total <= limit
    assert memory_spectrum.population_rows(1437, 10**10) == 1437
    assert len(np.unique(sampled_rows(100, 40))) == 40
    np.testing.assert_array_equal(sampled_rows(50, 50), np.arange(50))


@pytest.mark.slow
def test_the_learning_curve_of_the_digits_is_predicted(tmp_path: Path) -> None:
    """Within 15 % of the held-out error of the same kernel, from 50 rows to nearly all (`docs/spectrum.md`)."""
    config = load_run(EXAMPLES / "digits.yaml", [f"out={tmp_path}/run"])
    ready = prepare(config, SerialCluster(kind="serial"), folder=EXAMPLES)
    opened = open_prepared(ready)
    with opened as session:
        figures = run_stages(session, ready.plan)["spectrum"]["ntk"]
    sizes = open_run(tmp_path / "run").store.read_all(curve_array("ntk", "size"))
    assert sizes[0] <= 50
    assert sizes[-1] >= 1400
    assert figures["learning_curve"]["largest_deviation"] < 0.15
