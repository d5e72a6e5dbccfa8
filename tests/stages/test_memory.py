"""Memory is a promise: what the plan says of a worker's peak is not exceeded by the workers of a real run."""

from __future__ import annotations

import importlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.cluster import LocalCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.plan import memory
from pipeline.stages.opening import open_prepared
from pipeline.stages.order import run_stages
from pipeline.stages.prepare import prepare
from tests.stages.conftest import ARCHITECTURE


@pytest.mark.parametrize("precision", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_no_worker_exceeds_the_plan(tmp_path: Path, precision: str) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((2500, 50)))
    np.save(tmp_path / "y.npy", rng.standard_normal((2500, 3)))
    document = {
        "data": {
            "train": {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy")},
            "split": {"test": 0.2},
            "task": "regression",
        },
        "kernel": {"architecture": ARCHITECTURE, "precision": precision},
        "gram": {"tile": 512},
        "solve": {"ridge": [1e-3]},
        "out": str(tmp_path / "run"),
    }
    ready = prepare(validate(RunConfig, document, "test"), LocalCluster(workers=2, threads=1, memory="2 GB"))
    opened = open_prepared(ready)
    with opened as session:
        measured = run_stages(session, ready.plan)["memory"]["peak_worker_bytes"]
    promised = 0
    for stage in ready.plan.stages:
        # A peak is of a process's whole life, so a later stage also shows what an earlier one needed.
        promised = max(promised, stage.peak)
        assert 0 < measured[stage.name] <= promised, (stage.name, measured, promised)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wanted",
    [
        {"method": "band", "vectors": 4},
        {"method": "lanczos", "count": 40},
        {"method": "density", "steps": 30},
    ],
    ids=lambda wanted: str(wanted["method"]),
)
def test_spectrum_stays_below_the_plan(tmp_path: Path, wanted: dict[str, object]) -> None:
    """The workers by their peak memory, the process that directs them by what it allocates."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((3000, 10)))
    document = {
        "data": {"train": {"x": str(tmp_path / "x.npy")}, "task": "none"},
        "kernel": {"architecture": ARCHITECTURE},
        "gram": {"tile": 256},
        "spectrum": wanted,
        "out": str(tmp_path / "run"),
    }
    ready = prepare(validate(RunConfig, document, "test"), LocalCluster(workers=2, threads=1, memory="2 GB"))
    stages = {stage.name: stage.peak for stage in ready.plan.stages}
    opened = open_prepared(ready)
    with opened as session:
        run_stages(session, ready.plan, only="gram")
        importlib.import_module("scipy.stats")  # 39 MB of modules are the process's, not the method's
        tracemalloc.start()
        try:
            measured = run_stages(session, ready.plan, only="spectrum")["memory"]["peak_worker_bytes"]
            directing = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert 0 < measured["spectrum"] <= max(stages["gram"], stages["spectrum"])
    # A band is directed by messages alone: what is allocated then are modules and records.
    if wanted["method"] != "band":
        assert directing <= stages["spectrum"] - memory.PROCESS_WITH_JAX
