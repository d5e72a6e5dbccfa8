"""Regression by conjugate gradients: equal to Cholesky's, resumed bit for bit, and clear when it cannot be done."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.linalg import conjugate_gradients
from pipeline.data import DataWarning
from pipeline.errors import GateError
from pipeline.opened import open_run

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
