"""What of a spectrum is kept when something changes on which it does not depend: the same records, bit for bit what a
new run finds, and nothing is read that is not needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_run
from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.stages.cholesky_work import CholeskyWork
from pipeline.stages.compare import compare
from pipeline.stages.operator import GramOperator
from pipeline.stages.spectrum_band import BandWork
from pipeline.stages.status import status
from tests.stages.conftest import ARCHITECTURE, Killed, Runner, interrupted

Contents = Callable[[Path], dict[str, bytes]]

METHODS: dict[str, dict[str, Any]] = {
    "eigh": {"method": "eigh", "smallest": 3},
    "band": {"method": "band", "vectors": 5},
    "lanczos": {"method": "lanczos", "count": 6, "vectors": 4},
    "density": {"method": "density", "steps": 12, "probes": 4, "smallest": 3},
}
LABELS, CURVES = ("label-power", "label-alignment"), ("learning-curve", "dynamics")
BOTH, ONE = ({"architecture": ARCHITECTURE, "get": get} for get in (["ntk", "nngp"], ["ntk"]))


def records(directory: Path, folder: str = "spectrum", without: tuple[str, ...] = ()) -> dict[Any, Record]:
    """The records of the arrays in a folder of the store, by chunk."""
    journal = open_run(directory).journal
    return {
        (name, key): record
        for name in journal.arrays()
        if name.startswith(f"{folder}/") and not any(part in name for part in without)
        for key, record in journal.records(name).items()
    }


def states(directory: Path) -> dict[str, str]:
    return {entry["stage"]: entry["state"] for entry in status(directory)["stages"]}


@pytest.mark.parametrize("method", METHODS)
def test_another_ridge_needs_nothing_of_the_matrix(
    runner: Runner, narrow: None, contents: Contents, method: str
) -> None:
    directory, other = runner.folder / "run", runner.folder / "other"
    wanted: dict[str, Any] = {"spectrum": METHODS[method], "solve": {"ridge": [1e-3, 1e-2]}}
    for stage in ("gram", "spectrum"):
        runner.run(stage, **wanted)
    old = open_run(directory)
    before, kept = old.metrics["spectrum"]["ntk"], records(directory, without=CURVES)
    wanted["solve"] = {"ridge": [1e-1]}
    runner.run("gram", **wanted)
    assert states(directory)["spectrum"] == "stale"
    if method != "density":
        with pytest.raises(InputError, match=r"is stale\n.*solve\.ridge"):
            old.eigenvalues()
        with pytest.raises(InputError, match="is stale"):
            compare(str(directory), str(directory))
    # Whatever would be read of the matrix now is not there.
    tiles = directory / "store.zarr/gram/ntk/c"
    tiles.rename(runner.folder / "tiles")
    after = runner.run("spectrum", **wanted)["spectrum"]["ntk"]
    (runner.folder / "tiles").rename(tiles)
    assert kept == records(directory, without=CURVES)
    assert states(directory)["spectrum"] == "done"
    for stage in ("gram", "spectrum"):
        fresh = runner.run(stage, **wanted, out=str(other))
    assert after == fresh["spectrum"]["ntk"] != before
    assert [entry["ridge"] for entry in after["rkhs_norm"]] == [1e-1]
    found, expected = contents(directory), contents(other)
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found if name.startswith("spectrum/"))


@pytest.mark.parametrize("method", METHODS)
def test_other_targets_leave_eigenpairs_alone(
    runner: Runner, narrow: None, contents: Contents, method: str
) -> None:
    directory, other = runner.folder / "run", runner.folder / "other"
    wanted = {"spectrum": METHODS[method]}
    for stage in ("gram", "spectrum"):
        runner.run(stage, **wanted)
    kept = records(directory, without=(*LABELS, *CURVES))
    np.save(runner.folder / "y.npy", np.cos(runner.x[:, :1]))
    after = runner.run("spectrum", **wanted)["spectrum"]["ntk"]
    assert kept == records(directory, without=(*LABELS, *CURVES))
    for stage in ("gram", "spectrum"):
        fresh = runner.run(stage, **wanted, out=str(other))
    assert after == fresh["spectrum"]["ntk"]
    found, expected = contents(directory), contents(other)
    assert all(found[name] == expected[name] for name in expected if name.startswith("spectrum/"))


@pytest.mark.parametrize(
    ("method", "owner", "step"),
    [
        ("band", BandWork, "__call__"),
        ("lanczos", GramOperator, "matvec"),
        ("density", GramOperator, "matvec"),
        ("density", CholeskyWork, "__call__"),
    ],
)
def test_half_done_work_goes_on_with_another_ridge(
    runner: Runner, narrow: None, monkeypatch: pytest.MonkeyPatch, method: str, owner: type, step: str
) -> None:
    def steps_of(**fields: Any) -> int:
        """Run the stage; how many steps it took."""
        real, calls = getattr(owner, step), []

        def counted(self: Any, *arguments: Any) -> Any:
            calls.append(1)
            return real(self, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(owner, step, counted)
            runner.run("spectrum", **fields)
        return len(calls)

    wanted: dict[str, Any] = {"spectrum": METHODS[method], "solve": {"ridge": [1e-2]}}
    other = {"out": str(runner.folder / "other")}
    runner.run("gram", **wanted)
    runner.run("gram", **wanted, **other)
    whole = steps_of(**wanted)
    with monkeypatch.context() as patch:
        interrupted(patch, owner, step, 4)
        with pytest.raises(Killed):
            runner.run("spectrum", **{**wanted, "solve": {"ridge": [1e-3, 1e-1]}}, **other)
    # The last step may not have been recorded.
    assert steps_of(**wanted, **other) in (whole - 4, whole - 3)
    metrics = [open_run(runner.folder / name).metrics["spectrum"] for name in ("run", "other")]
    assert metrics[0] == metrics[1]


def test_settings_of_another_method_change_nothing(runner: Runner) -> None:
    runner.run("gram")
    runner.run("spectrum", spectrum={"method": "eigh"})
    before = records(runner.folder / "run")
    runner.run("spectrum", spectrum={"method": "eigh", "steps": 20, "probes": 4})
    assert records(runner.folder / "run") == before
    runner.run("spectrum", spectrum={"method": "eigh", "count": 20})
    assert len(open_run(runner.folder / "run").eigenvalues()) == 20


def test_auto_stays_with_what_another_method_stored(runner: Runner, narrow: None) -> None:
    """As on machines where the first choice of `auto` does not fit."""
    runner.run("gram")
    assert runner.run("spectrum", spectrum={"method": "band"})["spectrum"]["ntk"]["method"] == "band"
    before = records(runner.folder / "run")
    assert runner.run("spectrum", spectrum={"method": "auto"})["spectrum"]["ntk"]["method"] == "band"
    assert records(runner.folder / "run") == before
    # Not if something of it is missing: more vectors are wanted.
    again = runner.run("spectrum", spectrum={"method": "auto", "vectors": 20})["spectrum"]["ntk"]
    assert again["method"] == "eigh"


def test_fewer_kernels_keep_and_more_kernels_add(runner: Runner) -> None:
    directory = runner.folder / "run"
    crossed = {"gram": {"tile": 16, "cross": True}}
    runner.run(kernel=BOTH, **crossed)
    folders = ("gram", "cross", "checks", "spectrum/ntk")
    kept = [records(directory, folder) for folder in folders]
    removed = open_run(directory).eigenvalues("nngp")
    runner.run(kernel=ONE, **crossed)
    assert [records(directory, folder) for folder in folders] == kept
    assert status(directory)["complete"]
    with pytest.raises(InputError, match="no spectrum/nngp/eigenvalues"):
        open_run(directory).eigenvalues("nngp")
    with pytest.raises(InputError, match="no spectrum of nngp"):
        compare(str(directory), f"{directory}#nngp")
    runner.run(kernel=BOTH, **crossed)
    assert [records(directory, folder) for folder in folders] == kept
    np.testing.assert_array_equal(open_run(directory).eigenvalues("nngp"), removed)
