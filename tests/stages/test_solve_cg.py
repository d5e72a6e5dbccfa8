"""Regression by conjugate gradients: equal to Cholesky's, resumed bit for bit, and clear when it cannot be done."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ntk.linalg import conjugate_gradients
from pipeline.data import DataWarning
from pipeline.errors import GateError
from pipeline.opened import open_run
from tests.stages.conftest import ARCHITECTURE

RIDGES = [1e-4, 1e-2]
TIGHT = {"method": "cg", "tolerance": 1e-11, "ridge": RIDGES, "rank": 20}


@pytest.fixture
def direct(runner):
    """The run solved by Cholesky."""
    result = runner.run(
        solve={"method": "cholesky", "ridge": RIDGES},
        spectrum={"method": "none"},
        out=str(runner.folder / "direct"),
    )
    return result, open_run(runner.folder / "direct")


def cg_run(runner, name, **solve):
    return runner.run(solve=TIGHT | solve, spectrum={"method": "none"}, out=str(runner.folder / name))


@pytest.mark.parametrize("preconditioner", ["rpcholesky", "nystrom", "none"])
def test_it_agrees_with_cholesky(runner, direct, preconditioner):
    result = cg_run(runner, "cg", preconditioner=preconditioner)
    run = open_run(runner.folder / "cg")
    np.testing.assert_allclose(run.solution, direct[1].solution, rtol=1e-6, atol=1e-8)
    for entry in result["solve"]["ridges"]:
        assert entry["gates"]["residual"]["passed"]
        assert entry["rank"] == (0 if preconditioner == "none" else 20)
        history = np.array(entry["convergence"])
        assert history.shape == (2, entry["products"] + 1)
        assert history[:, -1].max() <= 2e-11
    assert result["solve"]["method"] == "cg"
    assert result["solve"]["chosen"]["by"] == "gcv"
    assert result["predict"]["chosen"]["by"] == "gcv"
    page = (runner.folder / "cg" / "report.html").read_text()
    assert "Convergence" in page


def test_generalised_cross_validation_is_near_its_exact_value(runner, direct):
    result = cg_run(runner, "cg")
    matrix = open_run(runner.folder / "cg").gram("ntk").to_numpy()
    for entry in result["solve"]["ridges"]:
        exact = np.trace(np.linalg.inv(matrix + entry["lambda"] * np.eye(70))) / 70
        assert entry["mean_inverse_diagonal"] == pytest.approx(exact, rel=0.35)
    loo = [entry["loo_rmse"] for entry in direct[0]["solve"]["ridges"]]
    gcv = [entry["gcv_rmse"] for entry in result["solve"]["ridges"]]
    assert np.argmin(loo) == np.argmin(gcv)


def test_a_killed_solve_continues_bit_for_bit(killed_solve_continues):
    killed_solve_continues(cg_run, conjugate_gradients, at=(1, 9))


def test_a_solve_that_cannot_reach_its_tolerance_says_so(runner):
    with pytest.raises(
        GateError, match=r"did not reach 1e-11 within solve.max_iterations: right-hand side \d"
    ) as caught:
        cg_run(runner, "cg", max_iterations=3, preconditioner="none")
    assert "solve.rank" in str(caught.value.hint)


def test_repeated_rows_are_solved_or_explained(runner):
    runner.x[35:] = runner.x[:35]
    np.save(runner.folder / "x.npy", runner.x)
    with pytest.warns(DataWarning, match="35 rows repeat"):
        result = cg_run(runner, "cg", ridge=[1e-8], tolerance=1e-6, rank="auto")
    assert result["solve"]["ridges"][0]["gates"]["residual"]["passed"]
    assert result["solve"]["chosen"]["by"] == "only"
    failure = r"solve: conjugate gradients .* (not positive definite|stagnated|did not reach)"
    with pytest.warns(DataWarning), pytest.raises(GateError, match=failure):
        cg_run(runner, "hard", ridge=[0.0], tolerance=1e-12, max_iterations=100)


@pytest.mark.filterwarnings("ignore::pipeline.data.DataWarning")
@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        *itertools.product(["matrix_kernel", "low_rank_kernel", "repeated rows"], ["float64", "float32"]),
        ("nearly repeated rows", "float32"),
    ],
)
def test_the_ridge_that_a_failure_advises_is_enough(runner, kernel, precision):
    """Of a matrix that is singular, or indefinite by rounding, without a ridge."""
    runner.x[:, 0] = np.arange(len(runner.x))
    if kernel.endswith("rows"):
        runner.x[35:] = runner.x[:35] + (1e-9 if kernel.startswith("nearly") else 0.0)
    np.save(runner.folder / "x.npy", runner.x)
    function = {"function": f"tests.stages.test_solve_cholesky:{kernel}"}
    options = {
        "kernel": ({"architecture": ARCHITECTURE} if kernel.endswith("rows") else function)
        | {"precision": precision},
        "data": {name: part for name, part in runner.document()["data"].items() if name != "test"},
        "spectrum": {"method": "none"},
    }
    solve = {"method": "cg", "tolerance": 1e-8, "rank": 5, "max_iterations": 500}
    with pytest.raises(GateError, match=r"not positive definite|stagnated") as failure:
        runner.run(solve=solve | {"ridge": [0.0]}, **options)
    advised = float(str(failure.value.hint).split("a ridge of ")[1].split()[0])
    assert advised < 1e-3
    (entry,) = runner.run(solve=solve | {"ridge": [advised]}, **options)["solve"]["ridges"]
    assert entry["gates"]["residual"]["passed"]
