"""The stages together: stored results equal dense linear algebra, resuming costs nothing and changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import cho_solve, cholesky, eigvalsh

from ntk import stax
from pipeline import open_run
from pipeline.errors import GateError, InputError
from pipeline.stages import status
from pipeline.stages.compare import compare
from pipeline.stages.verify import check
from tests.stages.conftest import ARCHITECTURE, Runner

Contents = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize("get", [["ntk"], ["nngp"], ["ntk", "nngp"]])
def test_results_equal_dense_linear_algebra(runner: Runner, get: list[str]) -> None:
    document = runner.run(kernel={"architecture": ARCHITECTURE, "get": get})
    run = open_run(runner.folder / "run")
    unit = runner.x / np.linalg.norm(runner.x, axis=1, keepdims=True)
    unit_test = runner.x_test / np.linalg.norm(runner.x_test, axis=1, keepdims=True)
    kernel_fn = stax.from_spec(ARCHITECTURE).kernel_fn
    for kernel in get:
        dense = np.asarray(kernel_fn(unit, None, kernel))
        matrix = run.gram(kernel).to_numpy()
        np.testing.assert_allclose(matrix, dense, rtol=1e-12)
        assert np.array_equal(matrix, matrix.T)
        np.testing.assert_allclose(run.eigenvalues(kernel)[::-1], eigvalsh(matrix), atol=1e-12)
    name = get[0]
    matrix = run.gram(name).to_numpy()
    cross = np.asarray(kernel_fn(unit_test, unit, name))
    for index, ridge in enumerate((1e-6, 1e-3)):
        shift = ridge * np.trace(matrix) / len(matrix)
        factor = cholesky(matrix + shift * np.eye(len(matrix)))
        alpha = cho_solve((factor, False), runner.y)
        np.testing.assert_allclose(run.solution[index], alpha, rtol=1e-6, atol=1e-8 * np.abs(alpha).max())
        # Leave-one-out from the factor equals leaving one out.
        errors = []
        for i in range(len(matrix)):
            rest = np.delete(np.arange(len(matrix)), i)
            small = matrix[np.ix_(rest, rest)] + shift * np.eye(len(rest))
            errors.append(runner.y[i] - matrix[i, rest] @ np.linalg.solve(small, runner.y[rest]))
        figures = document["solve"]["ridges"][index]
        assert figures["loo_rmse"] == pytest.approx(np.sqrt(np.mean(np.square(errors))), rel=1e-6)
        assert figures["log_determinant"] == pytest.approx(2 * np.log(np.diag(factor)).sum(), rel=1e-9)
        if ridge == document["predict"]["chosen"]["ridge"]:
            np.testing.assert_allclose(run.predictions, cross @ alpha, rtol=1e-6, atol=1e-8)
    assert document["predict"]["rmse"] == pytest.approx(
        np.sqrt(np.mean((run.predictions - runner.y_test) ** 2))
    )
    assert json.loads((runner.folder / "run/metrics.json").read_text()) == run.metrics
    assert "<html" in (runner.folder / "run/report.html").read_text()


def test_lazy_and_blocks_are_the_same_matrix(runner: Runner) -> None:
    runner.run("gram")
    gram = open_run(runner.folder / "run").gram()
    matrix = gram.to_numpy()
    np.testing.assert_array_equal(np.asarray(gram.to_dask().compute(scheduler="sync")), matrix)
    for i in range(gram.grid.blocks):
        for j in range(gram.grid.blocks):
            np.testing.assert_array_equal(gram.block(i, j), matrix[gram.grid.rows(i), gram.grid.rows(j)])
    with pytest.raises(IndexError):
        gram.block(0, gram.grid.blocks)
    with pytest.raises(InputError, match=r"70 × 70 needs 39.2 kB, the limit is 1 kB"):
        gram.to_numpy(limit="1 kB")


def test_finished_run_is_left_alone(runner: Runner, contents: Contents) -> None:
    runner.run()
    before = contents(runner.folder / "run")
    segments = list((runner.folder / "run/journal").iterdir())
    runner.run()
    assert contents(runner.folder / "run") == before
    assert list((runner.folder / "run/journal").iterdir()) == segments


def test_stage_by_stage_equals_all_at_once(runner: Runner, contents: Contents) -> None:
    for stage in ("gram", "solve", "predict", "spectrum", "report"):
        runner.run(stage)
    runner.run(out=str(runner.folder / "other"))
    assert contents(runner.folder / "run") == contents(runner.folder / "other")


def test_shares_in_any_order_equal_one_run(runner: Runner, contents: Contents) -> None:
    for share in (3, 1, 2):
        runner.run(shard=(share, 3), out=str(runner.folder / "shared"))
    directory = runner.folder / "shared"
    assert status.status(directory)["stages"][0]["tiles_done"] == 15
    runner.run(out=str(directory))
    runner.run()
    assert contents(directory) == contents(runner.folder / "run")


def test_stored_kernel_of_held_out_rows(runner: Runner, contents: Contents) -> None:
    runner.run("gram")
    plain = contents(runner.folder / "run")
    tiled = {"gram": {"tile": 16, "cross": True}, "kernel": {"architecture": ARCHITECTURE, "get": "both"}}
    gates = runner.run("gram", **tiled)["gram"]["ntk"]["gates"]
    assert gates["cross entries"]["passed"]
    assert (
        contents(runner.folder / "run").items()
        >= {name: data for name, data in plain.items() if name.startswith(("gram", "inputs"))}.items()
    )
    assert status.status(runner.folder / "run")["stages"][0]["tiles_done"] == 2 * (15 + 2 * 5)
    run = open_run(runner.folder / "run")
    unit, unit_test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (runner.x, runner.x_test))
    kernel_fn = stax.from_spec(ARCHITECTURE).kernel_fn
    for kernel in ("ntk", "nngp"):
        np.testing.assert_allclose(
            run.cross(kernel), np.asarray(kernel_fn(unit_test, unit, kernel)), rtol=1e-12
        )
    with pytest.raises(InputError, match="25 × 70 needs 14 kB"):
        run.cross(limit="1 kB")
    # Other held-out rows: their kernel is computed anew, the Gram matrix stays.
    before = run.cross()
    runner.x_test[0] += 1
    np.save(runner.folder / "x_test.npy", runner.x_test)
    runner.run("gram", **tiled)
    after = open_run(runner.folder / "run").cross()
    assert (before[1:] == after[1:]).all()
    assert not (before[0] == after[0]).any()


def test_changed_ridge_recomputes_what_depends_on_it(runner: Runner) -> None:
    runner.run()
    tiles = {file: file.stat().st_mtime_ns for file in (runner.folder / "run/store.zarr/gram").rglob("c/*/*")}
    runner.run("gram", solve={"ridge": [1e-2]})
    states = {entry["stage"]: entry for entry in status.status(runner.folder / "run")["stages"]}
    assert [states[name]["state"] for name in ("gram", "solve", "predict", "spectrum")] == [
        "done",
        *["stale"] * 3,
    ]
    assert "solve.ridge" in states["solve"]["why"][0]
    old = open_run(runner.folder / "run")
    for name in ("solution", "predictions", "predictions_in_training", "eigenvalues", "eigenvectors"):
        with pytest.raises(InputError, match=r"is stale\n.*solve\.ridge"):
            value = getattr(old, name)
            value()
    with pytest.raises(InputError, match="is stale"):
        compare(str(runner.folder / "run"), str(runner.folder / "run"))
    document = runner.run(solve={"ridge": [1e-2]})
    assert [entry["ridge"] for entry in document["solve"]["ridges"]] == [1e-2]
    assert len(open_run(runner.folder / "run").solution) == 1
    assert all(file.stat().st_mtime_ns == time for file, time in tiles.items())
    assert status.status(runner.folder / "run")["complete"]


def test_new_targets_and_held_out_rows_are_used_beside_old_tiles(runner: Runner) -> None:
    """The Gram matrix depends on neither; what comes after it must not see the old ones."""
    train = {"x": str(runner.folder / "x.npy"), "y": str(runner.folder / "y.npy")}
    runner.run(data={"train": train, "task": "regression"})
    tiles = {file: file.stat().st_mtime_ns for file in (runner.folder / "run/store.zarr/gram").rglob("c/*/*")}
    old = open_run(runner.folder / "run").solution[0]
    np.save(runner.folder / "y.npy", 2 * runner.y)
    runner.run()
    run = open_run(runner.folder / "run")
    np.testing.assert_allclose(run.solution[0], 2 * old, rtol=1e-12)
    assert run.predictions.shape == runner.y_test.shape
    np.save(runner.folder / "x_test.npy", runner.x_test[::-1])
    np.save(runner.folder / "y_test.npy", runner.y_test[::-1])
    before = run.predictions
    runner.run()
    np.testing.assert_allclose(run.predictions, before[::-1], rtol=1e-12)
    assert tiles and all(file.stat().st_mtime_ns == time for file, time in tiles.items())


def test_second_kernel_is_added_beside_the_first(runner: Runner) -> None:
    runner.run("gram")
    tiles = {
        file: file.stat().st_mtime_ns for file in (runner.folder / "run/store.zarr/gram/ntk").rglob("c/*/*")
    }
    runner.run("gram", kernel={"architecture": ARCHITECTURE, "get": "both"})
    assert tiles
    assert all(file.stat().st_mtime_ns == time for file, time in tiles.items())
    assert open_run(runner.folder / "run").gram("nngp").to_numpy().shape == (70, 70)


def change_data(runner: Runner) -> dict[str, Any]:
    runner.x[3] += 1
    np.save(runner.folder / "x.npy", runner.x)
    return {}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda runner: {"gram": {"tile": 8}}, "gram.tile: stored 16, now 8"),
        (lambda runner: {"kernel": {"architecture": ["Relu", *ARCHITECTURE]}}, "kernel.architecture"),
        (
            lambda runner: {"kernel": {"architecture": ARCHITECTURE, "precision": "float32"}},
            "kernel.precision",
        ),
        (change_data, "data.train.x"),
    ],
)
@pytest.mark.faults(
    "tile, architecture, precision or data changed under a store", "exit 2 naming the field, nothing changed"
)
def test_another_run_is_refused_and_nothing_changes(
    runner: Runner, contents: Contents, change: Callable[[Runner], dict[str, Any]], field: str
) -> None:
    runner.run("gram")
    before = contents(runner.folder / "run")
    config = (runner.folder / "run/run.yaml").read_text()
    with pytest.raises(InputError, match=field):
        runner.run("gram", **change(runner))
    assert contents(runner.folder / "run") == before
    assert (runner.folder / "run/run.yaml").read_text() == config


def test_auto_tile_of_a_stored_run_is_kept(runner: Runner) -> None:
    runner.run("gram")
    assert runner.prepare(gram={"tile": "auto"}).plan.grid.tile == 16


@pytest.mark.parametrize("text", [None, "a: [", "mine: 1"])
def test_a_lost_run_yaml_is_written_again_by_the_run_that_it_was_of(
    runner: Runner, contents: Callable[[Path], dict[str, bytes]], text: str | None
) -> None:
    runner.run()
    directory = runner.folder / "run"
    before, config = contents(directory), (directory / "run.yaml").read_text()
    (directory / "run.yaml").unlink() if text is None else (directory / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=r"(?s)run.yaml.*hint: `ntk run RUN.yaml --out .* writes it again"):
        status.status(directory)
    for other, complaint in (
        ({"kernel": {"architecture": ARCHITECTURE, "precision": "float32"}}, "another kernel"),
        ({"gram": {"tile": 32}}, r"(?s)tiles of 16 rows, not 32.*gram.tile=16"),
    ):
        with pytest.raises(InputError, match=complaint):
            runner.run(**other)
    assert not (directory / "run.yaml").exists() or (directory / "run.yaml").read_text() == text
    runner.run()
    assert (directory / "run.yaml").read_text() == config
    assert contents(directory) == before


def test_foreign_directory_is_refused(runner: Runner) -> None:
    (runner.folder / "mine").mkdir()
    (runner.folder / "mine/thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not a run directory"):
        runner.run(out=str(runner.folder / "mine"))
    assert [file.name for file in (runner.folder / "mine").iterdir()] == ["thesis.tex"]


def test_singular_matrix_without_ridge(runner: Runner) -> None:
    runner.x[9] = runner.x[4]
    np.save(runner.folder / "x.npy", runner.x)
    with (
        pytest.warns(match="repeat an earlier one"),
        pytest.raises(GateError, match=r"pivot 9 of 70 .*smallest eigenvalue") as caught,
    ):
        runner.run(solve={"ridge": [0.0]})
    assert "a ridge of" in str(caught.value.hint)
    with pytest.warns(match="repeat an earlier one"):
        runner.run(solve={"ridge": [float(str(caught.value.hint).split()[3])]})


@pytest.mark.faults("NaN produced inside a tile", "exit 1 naming the first bad entry")
def test_kernel_that_is_not_finite(runner: Runner) -> None:
    (runner.folder / "mykernel.py").write_text(
        "import numpy as np\n"
        "def k(x1, x2):\n    v = x1 @ x2.T\n    v[x1[:, 0] > 0.9] = np.nan\n    return v\n"
        "def fine(x1, x2):\n    return np.exp(x1 @ x2.T)\n"
        "def wrong(x1, x2):\n    return np.ones(3)\n"
    )
    runner.x[20] = [50, 0, 0, 0, 0, 0]
    np.save(runner.folder / "x.npy", runner.x)
    with pytest.raises(GateError, match=r"tile \(0, 1\) has .* not finite, the first K|tile \(1, 1\) has"):
        runner.run(kernel={"function": "mykernel:k"})
    with pytest.raises(InputError, match=r"returned shape \(3,\)"):
        runner.run(kernel={"function": "mykernel:wrong"}, out=str(runner.folder / "wrong"))
    assert (
        runner.run(kernel={"function": "mykernel:fine"}, out=str(runner.folder / "fine"))["predict"]["rows"]
        == 25
    )


def test_gram_and_spectrum_only(runner: Runner) -> None:
    data = {"train": {"x": str(runner.folder / "x.npy")}, "task": "none"}
    document = runner.run(data=data)
    assert set(document) >= {"gram", "spectrum", "report"}
    assert "solve" not in document
    with pytest.raises(InputError, match="no such stage"):
        runner.run("solve", data=data)


def test_later_stage_needs_the_earlier(runner: Runner) -> None:
    with pytest.raises(InputError, match="gram stage is not done"):
        runner.run("solve")


def test_verify_finds_and_names_every_kind_of_damage(runner: Runner) -> None:
    runner.run("gram")
    directory = runner.folder / "run"
    chunks = directory / "store.zarr/gram/ntk/c"
    assert check(directory)[1] == []
    flipped = bytearray((chunks / "0/0").read_bytes())
    flipped[100] ^= 1
    (chunks / "0/0").write_bytes(flipped)
    (chunks / "0/1").write_bytes((chunks / "0/1").read_bytes()[:50])
    (chunks / "0/2").unlink()
    (chunks / "0/3").write_bytes(b"")
    (chunks / "1/1").rename(chunks / "x")
    (chunks / "1/2").rename(chunks / "1/1")
    (chunks / "x").rename(chunks / "1/2")
    _, faults = check(directory)
    assert sorted(fault.key for fault in faults) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
