"""Probes: right on a machine that is, and the exit code says when something is not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.config.cluster import SCRATCH_VARIABLE
from pipeline.errors import InputError
from pipeline.stages import doctor


def test_a_sound_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["doctor", "--out", "a/b", "--cluster", "serial", "--json"])
    document = json.loads(result.stdout)
    assert result.exit_code == 0, document
    probes = {probe["name"]: probe["facts"] for probe in document["probes"]}
    assert probes["file system"]["write_bytes_per_second"] > 0
    assert probes["worker: jax"]["float64_product_error"] < 1e-13
    assert probes["worker: jax"]["float32_product_error"] < 256 * 1.2e-7
    assert probes["versions"].keys() >= {"python", "jax", "numpy", "zarr", "distributed", "ntk-pipeline"}
    assert list(tmp_path.iterdir()) == [], "a probe leaves nothing"
    assert "ok   file system" in doctor.to_text(document)


def test_a_scratch_directory_is_probed_where_workers_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "a/scratch"))
    probe = {probe.name: probe for probe in doctor.machine_probes()}["scratch"]
    assert probe.ok
    assert probe.facts["free"] > 0 < probe.facts["write_bytes_per_second"]
    assert list((tmp_path / "a/scratch").iterdir()) == []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(SCRATCH_VARIABLE, str(tmp_path / "file"))
    probe = {probe.name: probe for probe in doctor.machine_probes()}["scratch"]
    assert not probe.ok
    assert "read from the store by every worker" in probe.problem


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(InputError, match="is a file, expected a directory"):
        doctor.examine(tmp_path / "notes", None)


def test_what_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE", 2**70)
    probe = doctor.disk_probe(tmp_path)
    assert not probe.ok
    assert "are free" in probe.problem
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    )
    assert "Input/output error" in doctor.disk_probe(tmp_path / "x").problem
    monkeypatch.setenv("COLUMNS", "100")
    assert CliRunner().invoke(app, ["doctor", "--out", str(tmp_path)]).exit_code == 1
    assert CliRunner().invoke(app, ["doctor", "--cluster", "nowhere"]).exit_code == 2
