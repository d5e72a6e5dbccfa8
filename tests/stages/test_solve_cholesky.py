"""The direct method against dense linear algebra, in both precisions; what it falls back from; what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg

from ntk import device
from pipeline import open_run
from pipeline.errors import GateError
from pipeline.plan.cholesky import cholesky_tasks
from pipeline.stages import factor_tiles, gram, solve, spectrum_eigh
from pipeline.stages.cholesky_work import CholeskyWork, Factor, Precision
from pipeline.stages.opening import open_prepared
from pipeline.stages.regression import ALPHA
from pipeline.stages.session import Session
from pipeline.store.arrays import ArrayStore
from pipeline.store.faults import TileError
from tests.stages.conftest import ARCHITECTURE, Runner

RIDGES = [1e-2, 1e-1]
SLOW_RIDGES = [1e-17, 1e-16, 1e-15, 3e-14, 1e-13, 1e-12, 1e-11, 1e-4]


def matrix_kernel(x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    """Rows are (index, …): entries of a Hilbert matrix."""
    return 1.0 / (x1[:, :1] + x2[:, 0] + 1.0)


def low_rank_kernel(x1: np.ndarray, x2: np.ndarray) -> np.ndarray:
    return x1[:, :3] @ x2[:, :3].T


@pytest.fixture(params=[True, False], ids=["in memory", "on tiles"])
def in_memory(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_device_that_keeps_few_tiles_solves_and_decomposes_as_lapack_does(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """JAX's device, a CPU here, is taken for a GPU with room for three tiles of a factor, of two ridges in turn."""
    wanted = {
        "solve": {"ridge": RIDGES, "factor": precision, "in_memory": False, "keep_factor": True},
        "spectrum": {"method": "eigh"},
    }
    runner.run(**wanted, out=str(runner.folder / "host"))
    for module in (factor_tiles, spectrum_eigh):
        monkeypatch.setattr(module, "has_gpu", lambda: True)
    monkeypatch.setattr(device, "device_memory", lambda: 2**30)
    monkeypatch.setattr(factor_tiles, "device_room", lambda: 3 * 16 * 16 * np.dtype(precision).itemsize)
    taken: list[int] = []
    tell = factor_tiles.FactorTiles.operand

    def operand(self: factor_tiles.FactorTiles, store: ArrayStore, array: str, key: tuple[int, int]) -> Any:
        tile = tell(self, store, array, key)
        taken.append(len(self))
        np.testing.assert_array_equal(tile, store.view(array, key))
        return tile

    monkeypatch.setattr(factor_tiles.FactorTiles, "operand", operand)
    runner.run(**wanted)
    assert 0 < max(taken) < 6  # those at the edge are smaller
    here, there = (open_run(runner.folder / name) for name in ("run", "host"))
    np.testing.assert_allclose(here.solution[:], there.solution[:], rtol=1e-9)
    inverses = (run.store.read_all(Factor(1, precision).inverse) for run in (here, there))
    np.testing.assert_allclose(*inverses, rtol=1e-9 if precision == "float64" else 1e-4)
    values = there.eigenvalues()
    np.testing.assert_allclose(here.eigenvalues(), values, rtol=0, atol=1e-12 * values[0])


@pytest.mark.parametrize("factor", ["float64", "float32", "auto"])
def test_every_figure_equals_dense_linear_algebra(runner: Runner, factor: str, in_memory: bool) -> None:
    runner.run(solve={"ridge": RIDGES, "factor": factor, "in_memory": in_memory})
    run = open_run(runner.folder / "run")
    k, y = run.gram("ntk").to_numpy(), runner.y
    n, outputs = y.shape
    for index, entry in enumerate(run.metrics["solve"]["ridges"]):
        a = k + entry["lambda"] * np.eye(n)
        inverse = np.linalg.inv(a)
        alpha = scipy.linalg.solve(a, y, assume_a="pos")
        assert entry["factor"] == ("float64" if factor == "float64" else "float32")
        assert "fallback" not in entry
        np.testing.assert_allclose(run.solution[index], alpha, rtol=1e-9)
        rough = 1e-12 if factor == "float64" else 1e-4
        log_determinant = np.linalg.slogdet(a)[1]
        likelihood = -0.5 * (np.sum(y * alpha) + outputs * (log_determinant + n * np.log(2 * np.pi)))
        left_out = np.sqrt(np.mean((alpha / np.diag(inverse)[:, None]) ** 2))
        hat = k @ inverse
        gcv = np.sqrt(np.mean((y - hat @ y) ** 2)) / (1 - np.trace(hat) / n)
        assert entry["log_determinant"] == pytest.approx(log_determinant, rel=rough)
        if entry["factor"] == "float32":
            assert (
                abs(entry["log_determinant"] - log_determinant) <= 2 * entry["log_determinant_error"] < 1e-3
            )
        assert entry["log_marginal_likelihood"] == pytest.approx(likelihood, rel=rough)
        assert entry["degrees_of_freedom"] == pytest.approx(np.trace(hat), rel=10 * rough)
        assert entry["gcv_rmse"] == pytest.approx(gcv, rel=10 * rough)
        assert entry["loo_rmse"] == pytest.approx(left_out, rel=10 * rough)


def test_float32_falls_back_says_so_and_agrees(runner: Runner, in_memory: bool) -> None:
    ridges = [1e-10, 1e-1]
    kernel = {"function": "tests.stages.test_solve_cholesky:low_rank_kernel"}
    runs = {"kernel": kernel, "spectrum": {"method": "none"}}
    settings = {"ridge": ridges, "in_memory": in_memory}
    exact = runner.run(solve=settings, out=str(runner.folder / "exact"), **runs)["solve"]["ridges"]
    mixed = runner.run(solve=settings | {"factor": "float32"}, **runs)["solve"]["ridges"]
    assert [entry["factor"] for entry in mixed] == ["float64", "float32"]
    assert mixed[0]["fallback"].startswith("float32 would not do: ")
    assert mixed[0]["loo_rmse"] == exact[0]["loo_rmse"]
    names = open_run(runner.folder / "run").store.names()
    assert not [name for name in names if "factor" in name]


@pytest.mark.filterwarnings("ignore::pipeline.data.DataWarning")
def test_figures_beside_a_float32_factor_hold_for_a_few_equal_rows_and_huge_ridges(
    runner: Runner, in_memory: bool
) -> None:
    x = runner.x.copy()
    x[50:53] = x[20:23]
    np.save(runner.folder / "x.npy", x)
    ridges = [3e-7, 1e-5, 1e-3, 1e6, 1e12]
    runner.run(solve={"ridge": ridges, "factor": "float32", "in_memory": in_memory})
    run = open_run(runner.folder / "run")
    k, y = run.gram("ntk").to_numpy(), runner.y
    entries = run.metrics["solve"]["ridges"]
    for entry in entries:
        inverse = np.linalg.inv(k + entry["lambda"] * np.eye(len(k)))
        alpha, diagonal = inverse @ y, np.diag(inverse)
        left_out = np.sqrt(np.mean((alpha / diagonal[:, None]) ** 2))
        assert entry["loo_rmse"] == pytest.approx(left_out, rel=1e-3)
        assert entry["gcv_rmse"] == pytest.approx(np.sqrt(np.mean(alpha**2)) / diagonal.mean(), rel=1e-3)
        assert entry["degrees_of_freedom"] == pytest.approx(np.vdot(k, inverse), rel=1e-3)
    assert "the diagonal of the inverse" in entries[0]["fallback"] and "fallback" not in entries[-1]


def test_auto_takes_float64_where_float32_is_not_sure(runner: Runner, in_memory: bool) -> None:
    settings = {"ridge": [1e-9, 1e-1], "factor": "auto", "in_memory": in_memory}
    small, large = runner.run(solve=settings)["solve"]["ridges"]
    assert (small["factor"], large["factor"]) == ("float64", "float32")
    assert "fallback" not in small


@pytest.mark.filterwarnings("ignore::pipeline.data.DataWarning")
@pytest.mark.parametrize("kernel", ["matrix_kernel", "low_rank_kernel", "repeated_rows"])
@pytest.mark.parametrize(
    "ridge", [0.0, 1e-14, 1e-8, *(pytest.param(r, marks=pytest.mark.slow) for r in SLOW_RIDGES)]
)
@pytest.mark.parametrize("factor", ["float64", "float32"])
def test_the_gates_hold_or_the_failure_is_clear(
    runner: Runner, kernel: str, ridge: float, factor: str, in_memory: bool
) -> None:
    """Condition numbers from 1e4 to beyond 1e16: Hilbert's matrix, a matrix of rank 3, and the NTK of rows that are
    repeated, exactly and nearly."""
    runner.x[:, 0] = np.arange(len(runner.x))
    if kernel == "repeated_rows":
        runner.x[40:50], runner.x[50:60] = runner.x[:10], runner.x[10:20] + 1e-9
    np.save(runner.folder / "x.npy", runner.x)
    options: dict[str, Any] = {
        "kernel": {"architecture": ARCHITECTURE}
        if kernel == "repeated_rows"
        else {"function": f"tests.stages.test_solve_cholesky:{kernel}"},
        "solve": {"ridge": [ridge], "factor": factor, "in_memory": in_memory},
        "data": {key: value for key, value in runner.document()["data"].items() if key != "test"},
        "spectrum": {"method": "none"},
    }
    options["data"]["normalize"] = "none"
    try:
        (entry,) = runner.run(**options)["solve"]["ridges"]
    except GateError as failure:
        assert "pivot" in failure.message and "smallest eigenvalue" in failure.message
        assert failure.hint is not None
        sufficient = float(failure.hint.split("a ridge of ")[1].split()[0])
        options["solve"] = {"ridge": [sufficient], "in_memory": in_memory}
        (entry,) = runner.run(**options)["solve"]["ridges"]
    assert all(gate["passed"] for gate in entry["gates"].values())
    run = open_run(runner.folder / "run")
    a = run.gram("ntk").to_numpy() + entry["lambda"] * np.eye(len(runner.x))
    exact = scipy.linalg.cho_solve(scipy.linalg.cho_factor(a), runner.y)
    bound = 100 * np.finfo(float).eps * np.linalg.cond(a)
    assert np.linalg.norm(run.solution[0] - exact) <= bound * np.linalg.norm(exact)


@pytest.fixture
def halfway(runner: Runner):
    """A session whose Gram stage is done, and the work and tasks of a factorisation."""
    ready = runner.prepare(solve={"ridge": [1e-3]})
    opened = open_prepared(ready)
    with opened as session:
        gram.run(session)
        grid, factor = session.grid, Factor(0, "float64")
        session.create(factor.array, (grid.n, grid.n), (grid.tile, grid.tile), fingerprint="f")
        work = CholeskyWork(str(session.directory), "t", "ntk", grid, (1.0,))
        yield session, work, cholesky_tasks(grid.blocks, factor.array, (), "cholesky/0")


def test_a_corrupted_tile_of_the_factor_is_found_before_use(halfway) -> None:
    session, work, tasks = halfway
    assert isinstance(session, Session)
    for task in tasks[:3]:
        session.record(work(task)())
    (name, key) = tasks[1].writes[0]
    file = next(Path(session.directory).glob(f"store.zarr/{name}/c/{key[0]}/{key[1]}"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    reader = next(task for task in tasks if task.args[1:] == (1, 1))
    with pytest.raises(TileError, match=r"factor-0"):
        work(reader)
    (fault,) = session.store.verify([name])
    assert fault.key == key


def test_resumed_from_any_set_of_tiles_is_the_same(halfway) -> None:
    session, work, tasks = halfway
    for task in tasks:
        session.record(work(task)())
    array = Factor(0, "float64").array
    whole = {key: session.store.read(array, key) for key in session.grid.upper()}
    lost = [key for key in whole if sum(key) % 3 == 0]
    session.discard(array, lost)
    again = cholesky_tasks(session.grid.blocks, array, session.journal.done((array,)), "cholesky/0")
    assert len(again) == len(lost)
    for task in again:
        session.record(work(task)())
    for key, tile in whole.items():
        np.testing.assert_array_equal(session.store.read(array, key), tile)


def test_in_memory_a_ridge_that_was_lost_is_solved_again_the_same(runner: Runner) -> None:
    ready = runner.prepare(solve={"ridge": [1e-4, 1e-2], "in_memory": True, "keep_factor": True})

    def solved() -> dict[str, np.ndarray]:
        opened = open_prepared(ready)
        with opened as session:
            gram.run(session)
            solve.run(session)
            store = session.store
            arrays = {name: store.read_all(name) for name in store.names() if "inverse" in name}
            arrays |= {f"{ALPHA}-{index}": store.read(ALPHA, (index, 0, 0)) for index in (0, 1)}
            factor = Factor(0, "float64").array
            arrays |= {str(key): store.read(factor, key) for key in session.grid.upper()}
            # What a worker that died in the middle of the first ridge would not have recorded.
            session.discard(Factor(0, "float64").inverse, [(2,)])
            session.discard(factor, [(1, 2)])
            session.writer.stage("solve", session.fingerprint("solve"), "stale", {})
            return arrays

    first, again = solved(), solved()
    assert len(first) == 4 + ready.plan.grid.count
    for name, values in first.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
    u = np.zeros((len(runner.x), len(runner.x)))
    for i, j in ready.plan.grid.upper():
        u[ready.plan.grid.rows(i), ready.plan.grid.rows(j)] = first[str((i, j))]
    matrix = open_run(runner.folder / "run").gram("ntk").to_numpy()
    shift = 1e-4 * np.mean(np.diag(matrix))
    np.testing.assert_allclose(u.T @ u, matrix + shift * np.eye(len(u)), rtol=1e-12, atol=1e-12)


def test_names_of_a_factor_and_of_its_inverse_lead_back_to_it() -> None:
    for factor in (Factor(0, "float64"), Factor(12, "float32")):
        assert Factor.of(factor.array) == Factor.of(factor.inverse) == factor
