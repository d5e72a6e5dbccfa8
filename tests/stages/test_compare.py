"""Two runs side by side: equal kernels agree in everything, tiles of other sizes change nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from pipeline import open_run
from pipeline.errors import InputError
from pipeline.stages.compare import compare, to_text
from tests.stages.conftest import ARCHITECTURE, Runner


def test_two_kernels_of_one_run_are_compared(runner: Runner) -> None:
    runner.run(kernel={"architecture": ARCHITECTURE, "get": ["ntk", "nngp"]})
    directory = runner.folder / "run"
    run = open_run(directory)
    found = compare(f"{directory}#ntk", f"{directory}#nngp")
    expected = subspace_angles(run.eigenvectors("ntk"), run.eigenvectors("nngp"))[::-1]
    np.testing.assert_allclose(found["principal_angles_degrees"], np.degrees(expected))
    centre = np.eye(70) - 1 / 70
    a, b = (centre @ run.gram(kernel).to_numpy() @ centre for kernel in ("ntk", "nngp"))
    alignment = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert found["centred_kernel_alignment"] == pytest.approx(alignment)
    first = found["eigenvalues"][0]
    assert first["ratio"] == pytest.approx(run.eigenvalues("ntk")[0] / run.eigenvalues("nngp")[0])
    assert found["eigenvalues"][-1]["rank"] == 70
    assert "centred kernel alignment" in to_text(found)


def test_other_tiles_and_other_rows(runner: Runner, tmp_path: Path) -> None:
    runner.run()
    shutil.move(runner.folder / "run", tmp_path / "first")
    runner.run(gram={"tile": 24})
    found = compare(str(tmp_path / "first"), str(runner.folder / "run"))
    assert found["centred_kernel_alignment"] == pytest.approx(1)
    np.testing.assert_allclose(found["principal_angles_degrees"], 0, atol=1e-6)
    assert all(row["ratio"] == pytest.approx(1) for row in found["eigenvalues"])
    shutil.rmtree(runner.folder / "run")
    np.save(runner.folder / "x.npy", runner.x[::-1])
    runner.run()
    found = compare(str(tmp_path / "first"), str(runner.folder / "run"))
    assert not found["same_rows"]
    assert "centred_kernel_alignment" not in found
    assert "different rows" in to_text(found)


def test_what_is_not_there_is_named(runner: Runner, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run here"):
        compare(str(tmp_path / "nothing"), str(tmp_path / "nothing"))
    runner.run("gram")
    with pytest.raises(InputError, match="no spectrum"):
        compare(str(runner.folder / "run"), str(runner.folder / "run"))
    runner.run()
    with pytest.raises(InputError, match="no spectrum of nngp"):
        compare(str(runner.folder / "run"), f"{runner.folder / 'run'}#nngp")
