"""Small runs for the tests of stages: data on disk, a configuration in memory, everything in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.cluster import SerialCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.errors import PipelineError
from pipeline.plan import memory_spectrum
from pipeline.stages import spectrum_band
from pipeline.stages.opening import open_prepared
from pipeline.stages.order import run_stages
from pipeline.stages.prepare import Prepared, prepare

ARCHITECTURE = [{"Dense": {"out_dim": 64, "W_std": 1.5, "b_std": 0.05}}, "Relu", {"Dense": {"out_dim": 1}}]


class Runner:
    """Makes and runs small runs in one folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        rng = np.random.default_rng(0)
        self.x, self.x_test = rng.standard_normal((70, 6)), rng.standard_normal((25, 6))
        self.y, self.y_test = np.sin(self.x[:, :2]), np.sin(self.x_test[:, :2])
        for name in ("x", "y", "x_test", "y_test"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    def document(self, **fields: Any) -> dict[str, Any]:
        """A run.yaml as plain data; `fields` replace whole sections."""

        def source(x: str, y: str) -> dict[str, str]:
            return {"x": str(self.folder / f"{x}.npy"), "y": str(self.folder / f"{y}.npy")}

        data = {"train": source("x", "y"), "test": source("x_test", "y_test"), "task": "regression"}
        return {
            "data": data,
            "kernel": {"architecture": ARCHITECTURE},
            "gram": {"tile": 16},
            "solve": {"ridge": [1e-6, 1e-3]},
            "out": str(self.folder / "run"),
        } | fields

    def prepare(self, **fields: Any) -> Prepared:
        config = validate(RunConfig, self.document(**fields), "test")
        return prepare(config, SerialCluster(kind="serial"), allow_code=True, folder=self.folder)

    def run(
        self,
        only: str | None = None,
        shard: tuple[int, int] | None = None,
        *,
        extend: bool = False,
        **fields: Any,
    ) -> dict[str, Any]:
        ready = self.prepare(**fields)
        lease = "run" if shard is None else f"shard-{shard[0]}-of-{shard[1]}"
        opened = open_prepared(
            ready,
            lease=lease,
            extend=extend,
        )
        with opened as session:
            return run_stages(session, ready.plan, only=only, shard=shard)


class Killed(PipelineError):
    """Stands for a process that ends in the middle of its work."""


def interrupted(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, after: int) -> None:
    """Let a method of a stage's work fail at its `after`-th call, for good."""
    real, calls = getattr(owner, method), []

    def call(self, *arguments):
        calls.append(1)
        if len(calls) > after:
            raise Killed("killed")
        return real(self, *arguments)

    monkeypatch.setattr(owner, method, call)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several panels for a few rows."""
    for module in (memory_spectrum, spectrum_band):
        monkeypatch.setattr(module, "band_width", lambda *_: 12)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Every chunk file of a run's store, by name."""

    def read(directory: Path) -> dict[str, bytes]:
        root = directory / "store.zarr"
        files = (file for file in root.rglob("*") if file.is_file() and file.name != "zarr.json")
        return {str(file.relative_to(root)): file.read_bytes() for file in files}

    return read


@pytest.fixture
def killed_solve_continues(
    runner: Runner, contents: Callable[[Path], dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """`check(solve, iteration, at)`: a run by `solve(runner, name)` that is killed at some calls of `iteration.step`
    ends as an uninterrupted one does, bit for bit."""

    def check(solve: Callable[[Runner, str], Any], iteration: Any, at: tuple[int, ...]) -> None:
        solve(runner, "whole")
        step = iteration.step
        for stop in at:
            calls = iter(range(10_000))

            def dying(*arguments: Any, stop: int = stop, calls: Any = calls) -> Any:
                if next(calls) == stop:
                    raise KeyboardInterrupt
                return step(*arguments)

            monkeypatch.setattr(iteration, "step", dying)
            with pytest.raises(KeyboardInterrupt):
                solve(runner, "killed")
        monkeypatch.setattr(iteration, "step", step)
        solve(runner, "killed")
        whole, resumed = (contents(runner.folder / name) for name in ("whole", "killed"))
        assert whole.keys() == resumed.keys()
        assert all(
            whole[name] == resumed[name] for name in whole if name.startswith(("solution", "predictions"))
        )
        metrics = [
            json.loads((runner.folder / name / "metrics.json").read_text())["solve"]
            for name in ("whole", "killed")
        ]
        assert metrics[0] == metrics[1]

    return check
