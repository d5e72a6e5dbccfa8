"""Runs as the benchmarks need them: a configuration in memory, data on disk, a fresh directory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.cluster import AnyCluster
from pipeline.config.load import load_cluster, validate
from pipeline.config.model import RunConfig
from pipeline.stages.opening import open_prepared
from pipeline.stages.prepare import Prepared, prepare
from pipeline.stages.session import Progress, Session

RELU3 = [
    *[{"Dense": {"out_dim": 512, "W_std": 1.5, "b_std": 0.05}}, "Relu"] * 3,
    {"Dense": {"out_dim": 1}},
]
"""Three hidden ReLU layers."""


def chosen_cluster() -> AnyCluster:
    """Where runs of a benchmark happen: the entry of cluster.yaml that NTK_BENCH_CLUSTER names, `local` if it names
    none."""
    return load_cluster(os.environ.get("NTK_BENCH_CLUSTER", "local"), Path.cwd())


def prepared(
    folder: Path, x: np.ndarray, cluster: AnyCluster, y: np.ndarray | None = None, **config: Any
) -> Prepared:
    """A run on these inputs, in `folder/run`."""
    np.save(folder / "x.npy", x)
    data: dict[str, Any] = {"train": {"x": str(folder / "x.npy")}, "task": "none", "normalize": "none"}
    if y is not None:
        np.save(folder / "y.npy", y)
        data["train"]["y"] = str(folder / "y.npy")
        data["task"] = "regression"
    document = {"data": data, "kernel": {"architecture": RELU3}, "out": str(folder / "run")} | config
    run = validate(RunConfig, document, "benchmark")
    return prepare(run, cluster, allow_code=True)


@contextlib.contextmanager
def session(ready: Prepared, listener: Callable[[Progress], None] | None = None) -> Iterator[Session]:
    """The run, opened, with its workers up: starting them is not what is measured."""
    resources = ready.plan.resources
    opened = open_prepared(ready, resources, listener=listener)
    with opened as session:
        while len(session.executor.workers()) < resources.workers:
            time.sleep(0.05)
        yield session
