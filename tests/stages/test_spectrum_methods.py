"""The spectrum stage by each of its methods: the same eigenvalues, checked pairs, and resumed = uninterrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.opened import Run, open_run
from pipeline.plan import show
from pipeline.stages import spectrum_lanczos
from pipeline.stages.cholesky_work import CholeskyWork
from pipeline.stages.operator import GramOperator
from pipeline.stages.spectrum_band import BandWork
from pipeline.stages.spectrum_count import CountWork
from pipeline.stages.spectrum_eigh import EighWork
from pipeline.stages.spectrum_smallest import SmallestWork
from tests.stages.conftest import ARCHITECTURE, Killed, Runner, interrupted

Contents = Callable[[Path], dict[str, bytes]]
NO_SOLVE = {"method": "none"}


def spectrum(runner: Runner, **fields: object) -> dict:
    runner.run("gram", solve=NO_SOLVE)
    return runner.run("spectrum", solve=NO_SOLVE, spectrum=fields)["spectrum"]["ntk"]


def named_axes(run: Run) -> dict[str, tuple[str, ...]]:
    """The axes of each array of the spectrum. Equal names have equal lengths, as xarray wants it of a group."""
    lengths: dict[str, int] = {}
    found = {}
    for name in run.store.names():
        if name.startswith("spectrum/ntk/") and name.count("/") == 2:
            array = run.store.array(name)
            found[name.rsplit("/", 1)[1]] = names = tuple(array.metadata.dimension_names or ())
            for axis, length in zip(names, array.shape, strict=True):
                assert lengths.setdefault(axis, length) == length, axis
    return found


@pytest.mark.parametrize("tile", [16, 7])
def test_band_agrees_with_lapack(runner: Runner, narrow: None, tile: int) -> None:
    runner.run("gram", solve=NO_SOLVE, gram={"tile": tile})
    fields = {"solve": NO_SOLVE, "gram": {"tile": tile}}
    metrics = runner.run("spectrum", spectrum={"method": "band", "vectors": 5}, **fields)["spectrum"]["ntk"]
    run = open_run(runner.folder / "run")
    matrix = run.gram("ntk").to_numpy()
    exact = np.linalg.eigvalsh(matrix)[::-1]
    error = np.max(np.abs(run.eigenvalues("ntk") - exact))
    assert error <= 30 * len(exact) * np.finfo(float).eps * exact[0]
    vectors = run.eigenvectors("ntk")
    assert vectors.shape == (70, 5)
    assert np.allclose(matrix @ vectors, vectors * exact[:5], rtol=0, atol=1e-12 * exact[0])
    assert metrics["method"] == "band"
    wanted = {"trace", "frobenius", "inertia", "pairs", "orthogonality"}
    assert {name for name, gate in metrics["gates"].items() if gate["passed"]} == wanted
    axes = {"eigenvalues": ("mode",), "eigenvectors": ("row", "vector"), "label-power": ("vector", "output")}
    of_sample = {"label-alignment": ("matrix",), "sample": ("sampled_row", "sampled_column")}
    assert named_axes(run) == axes | of_sample


def test_methods_agree_on_what_they_share(runner: Runner, narrow: None) -> None:
    found = {}
    for method in ("eigh", "band"):
        found[method] = spectrum(runner, method=method)
        axes = named_axes(open_run(runner.folder / "run"))
        assert axes["label-power"] == ("mode" if method == "eigh" else "vector", "output")
    for name in ("lambda_max", "participation_ratio", "stable_rank", "label_alignment"):
        assert found["band"][name] == pytest.approx(found["eigh"][name], rel=1e-9), name
    assert found["band"]["modes_for_half_label_power"] in (None, found["eigh"]["modes_for_half_label_power"])


def test_smallest_pairs_agree_with_lapack(runner: Runner) -> None:
    kernel = {"architecture": ARCHITECTURE, "precision": "float32"}
    runner.run("gram", solve=NO_SOLVE, kernel=kernel)
    wanted = {"method": "density", "steps": 40, "smallest": 4}
    metrics = runner.run("spectrum", solve=NO_SOLVE, kernel=kernel, spectrum=wanted)["spectrum"]["ntk"]
    run = open_run(runner.folder / "run")
    matrix = run.gram("ntk").to_numpy().astype(np.float64)
    exact, modes = np.linalg.eigh(matrix)
    values = run.store.read_all("spectrum/ntk/smallest-eigenvalues")
    assert np.allclose(values, exact[:4], rtol=0, atol=1e-12 * exact[-1])
    vectors = run.store.read_all("spectrum/ntk/smallest-eigenvectors")
    assert np.linalg.norm(matrix @ vectors - vectors * values, axis=0).max() <= 1e-8 * exact[-1]
    assert np.linalg.svd(modes[:, :4].T @ vectors, compute_uv=False).min() > 1 - 1e-6
    assert metrics["smallest"]["smallest pairs"]["passed"]
    assert metrics["lambda_min"] == values[0] and metrics["indefinite"] is False
    assert not any("factor" in name for name in run.store.names())


@pytest.mark.parametrize("size", [1e-8, 0.0])
def test_alignment_with_a_constant_kernel(runner: Runner, size: float) -> None:
    """Near it alignment is that of what is added; for a constant itself there is none, and metrics stay JSON."""
    name = "constant" if not size else "nearly_constant"
    (runner.folder / f"{name}.py").write_text(
        f"import numpy as np\ndef k(x1, x2):\n    return 1 + {size} * np.exp(x1 @ x2.T)\n"
    )
    runner.run("gram", solve=NO_SOLVE, kernel={"function": f"{name}:k"})
    document = runner.run("spectrum", solve=NO_SOLVE, kernel={"function": f"{name}:k"})
    stored = (runner.folder / "run/metrics.json").read_text()
    assert json.loads(stored, parse_constant=pytest.fail)["spectrum"]["ntk"]["lambda_max"] > 0
    found = document["spectrum"]["ntk"]["label_alignment"]
    if not size:
        assert found is None
        return
    rows = runner.x / np.linalg.norm(runner.x, axis=1, keepdims=True)
    centre = np.eye(len(rows)) - 1 / len(rows)
    kernel, y = centre @ np.exp(rows @ rows.T) @ centre, centre @ runner.y
    exact = np.vdot(kernel, y @ y.T) / np.linalg.norm(kernel) / np.linalg.norm(y @ y.T)
    assert found == pytest.approx(exact, rel=1e-6)


def test_an_indefinite_float32_matrix_is_said_to_be_one(runner: Runner) -> None:
    """Eigenvalues below minus the noise floor are reported, not hidden."""
    (runner.folder / "indefinite.py").write_text(
        "import numpy as np\ndef k(x1, x2):\n    return np.tanh(2 * x1 @ x2.T + 1)\n"
    )
    kernel = {"function": "indefinite:k", "precision": "float32"}
    runner.run("gram", solve=NO_SOLVE, kernel=kernel)
    for method in ("eigh", "band", "density", "lanczos"):
        wanted = {"method": method, "steps": 60, "count": 20 if method == "lanczos" else "all"}
        found = runner.run("spectrum", solve=NO_SOLVE, kernel=kernel, spectrum=wanted)["spectrum"]["ntk"]
        assert found["indefinite"] is True
        assert found["noise_floor"] == pytest.approx(70 * np.finfo(np.float32).eps * found["lambda_max"])


def test_lanczos_agrees_with_lapack(runner: Runner) -> None:
    spectrum(runner, method="lanczos", count=3)  # Nothing of it is taken for what is asked for next.
    metrics = spectrum(runner, method="lanczos", count=6, vectors=4)
    run = open_run(runner.folder / "run")
    matrix = run.gram("ntk").to_numpy()
    exact = np.linalg.eigvalsh(matrix)[::-1]
    assert np.allclose(run.eigenvalues("ntk"), exact[:6], rtol=0, atol=1e-12 * exact[0])
    vectors = run.eigenvectors("ntk")
    assert vectors.shape == (70, 4)
    assert np.linalg.norm(matrix @ vectors - vectors * exact[:4], axis=0).max() <= 1e-7 * exact[0]
    assert metrics["passes"] <= 12
    assert metrics["gates"]["pairs"]["passed"]
    assert metrics["gates"]["inertia"] == {"value": 0.0, "limit": 1.0, "passed": True}
    assert "lambda_min" not in metrics
    assert named_axes(run)["inertia-count"] == ("shift",)
    assert {name for name in run.store.names() if name.startswith("passing/")} == set()


def test_density_holds_the_exact_figures_within_its_bars(runner: Runner) -> None:
    ridges = {"solve": {"ridge": [1e-4, 1e-2]}}
    runner.run("gram", **ridges)
    metrics = runner.run("spectrum", spectrum={"method": "density", "steps": 40}, **ridges)["spectrum"]["ntk"]
    run = open_run(runner.folder / "run")
    exact = np.linalg.eigvalsh(run.gram("ntk").to_numpy())
    shift = exact.mean() * 1e-2
    assert metrics["lambda_max"] == pytest.approx(exact[-1], rel=1e-10)
    dimension, log = metrics["effective_dimension"][1], metrics["log_determinant"][1]
    assert abs(dimension["value"] - np.sum(exact / (exact + shift))) <= 2 * dimension["half_width"]
    assert abs(log["value"] - np.sum(np.log(exact + shift))) <= 2 * log["half_width"]
    counts = metrics["counts"]
    larger = np.sum(exact > np.array(counts["threshold"])[:, None], axis=1)
    off = np.abs(np.array(counts["larger"]) - larger) - np.array(counts["half_width"])
    assert np.mean(off <= 0) >= 0.8
    assert metrics["passes"] == 40
    assert {gate for gate in metrics["gates"] if metrics["gates"][gate]["passed"]} == {"trace", "frobenius"}
    assert named_axes(run)["quadrature-nodes"] == ("probe", "node")
    assert {name for name in run.store.names() if name.startswith("passing/")} == set()
    assert "by density" in show.text(runner.prepare(spectrum={"method": "density"}).plan)


SMALLEST = {"method": "density", "steps": 12, "probes": 4, "smallest": 3}


@pytest.mark.parametrize(
    ("wanted", "owner", "method", "after"),
    [
        ({"method": "eigh"}, EighWork, "gates", 0),
        ({"method": "band"}, BandWork, "panel", 3),
        ({"method": "band"}, BandWork, "sweep", 2),
        ({"method": "band"}, BandWork, "eigenvectors", 0),
        ({"method": "lanczos", "count": 6}, GramOperator, "matvec", 1),
        ({"method": "lanczos", "count": 6}, GramOperator, "matvec", 4),
        ({"method": "lanczos", "count": 6}, CountWork, "__call__", 0),
        ({"method": "density", "steps": 12, "probes": 4}, GramOperator, "matvec", 5),
        (SMALLEST, CholeskyWork, "__call__", 7),
        (SMALLEST, SmallestWork, "pairs", 0),
    ],
)
def test_every_method_resumes_bit_for_bit(
    runner: Runner,
    narrow: None,
    contents: Contents,
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, object],
    owner: type,
    method: str,
    after: int,
) -> None:
    monkeypatch.setattr(spectrum_lanczos, "MAX_BLOCKS", 3)
    metrics = spectrum(runner, **wanted)
    whole = contents(runner.folder / "run")
    fields = {"solve": NO_SOLVE, "out": str(runner.folder / "other")}
    runner.run("gram", **fields)
    with pytest.MonkeyPatch.context() as patch:
        interrupted(patch, owner, method, after)
        with pytest.raises(Killed):
            runner.run("spectrum", spectrum=wanted, **fields)
    again = runner.run("spectrum", spectrum=wanted, **fields)["spectrum"]["ntk"]
    assert again == metrics
    resumed = contents(runner.folder / "other")
    assert {name for name in whole if name.startswith("spectrum/")} == {
        name for name in resumed if name.startswith("spectrum/")
    }
    assert all(whole[name] == resumed[name] for name in whole if name.startswith("spectrum/"))
