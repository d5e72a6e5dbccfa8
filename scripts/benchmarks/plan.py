"""How well a calibrated plan foretells a run: the gram stage, workers started cold."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.cluster import LocalCluster
from pipeline.stages import gram
from pipeline.stages.opening import open_prepared
from pipeline.stages.prepare import planned
from scripts.benchmarks import report, runs


def measure(rows: int, features: int, repeats: int) -> dict[str, Any]:
    """Planned and real wall seconds of the gram stage, and their ratio."""
    x = np.random.default_rng(0).standard_normal((rows, features), np.float32)
    plans, walls = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            kernel = {"architecture": runs.RELU3, "precision": "float32"}
            ready = runs.prepared(Path(folder), x, LocalCluster(), kernel=kernel)
            plan = planned(ready.config, LocalCluster())
            stage = plan.stage("gram")
            assert stage is not None
            plans.append(plan.seconds(stage))
            opened = open_prepared(ready)
            began = time.perf_counter()
            with opened as session:
                gram.run(session)
                walls.append(time.perf_counter() - began)
    return {
        "rows": rows,
        "features": features,
        "planned seconds": report.median(plans),
        "real seconds": report.median(walls),
        "real / planned": report.median([w / p for w, p in zip(walls, plans, strict=True)]),
        "wanted within": 0.2,
    }
