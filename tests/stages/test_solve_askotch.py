"""Regression by rows that are computed when needed: equal to Cholesky's, nothing stored, resumed bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from ntk.linalg import askotch
from pipeline.errors import GateError, InputError
from pipeline.opened import open_run

RIDGES = [1e-1, 1.0]
SETTINGS = {"method": "askotch", "tolerance": 1e-5, "ridge": RIDGES, "block": 48, "rank": 36}


def solved(runner, name, **solve):
    return runner.run(solve=SETTINGS | solve, spectrum={"method": "auto"}, out=str(runner.folder / name))


def test_it_agrees_with_cholesky_and_stores_no_matrix(runner) -> None:
    runner.run(
        solve={"method": "cholesky", "ridge": RIDGES},
        spectrum={"method": "none"},
        out=str(runner.folder / "d"),
    )
    result = solved(runner, "a")
    direct, run = open_run(runner.folder / "d"), open_run(runner.folder / "a")
    np.testing.assert_allclose(run.solution, direct.solution, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(run.predictions, direct.predictions, rtol=1e-3, atol=1e-4)
    assert not [name for name in run.store.names() if name.startswith("gram")]
    assert "gram" not in result
    assert "spectrum" not in result
    for entry in result["solve"]["ridges"]:
        assert entry["gates"]["residual"]["passed"]
        assert np.array(entry["convergence"]).shape == (2, entry["products"] + 1)
        assert entry["gcv_rmse_error"] > 0
    assert result["solve"]["method"] == "askotch"
    assert "Convergence" in (runner.folder / "a" / "report.html").read_text()


def test_a_killed_solve_continues_bit_for_bit(killed_solve_continues) -> None:
    killed_solve_continues(solved, askotch, at=(3, 12))


def test_what_cannot_be_is_refused_or_explained(runner) -> None:
    with pytest.raises(GateError, match=r"ASkotch .* did not reach 1e-05 within solve.max_iterations"):
        solved(runner, "short", max_iterations=2)
    with pytest.raises(InputError, match="stores no Gram matrix"):
        runner.run(solve=SETTINGS, spectrum={"method": "eigh"})
    with pytest.raises(InputError, match="gram: this run has no such stage"):
        runner.run("gram", solve=SETTINGS)
    plan = runner.prepare(solve=SETTINGS).plan
    assert plan.stage("gram") is None
    assert "are not stored" in plan.stage("solve").why
