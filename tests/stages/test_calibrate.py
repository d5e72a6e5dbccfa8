"""A calibrated plan: measured by the workers, nothing left behind, and no data needed where sizes are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.cluster import HypotheticalCluster, LocalCluster, SerialCluster
from pipeline.config.load import load_cluster, load_run, validate
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.plan import show
from pipeline.stages.prepare import planned, prepare
from tests.stages.conftest import ARCHITECTURE, Runner

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_rates_are_those_of_the_workers(runner: Runner) -> None:
    config = validate(RunConfig, runner.document(out=str(runner.folder / "deep/run")), "test")
    before = sorted(runner.folder.iterdir())
    plan = planned(config, LocalCluster(workers=2, threads=1))
    rates = plan.rates
    assert rates.measured
    assert min(rates.pair_seconds, rates.diagonal_seconds, rates.products, rates.read, rates.write) > 0
    assert 0 < rates.startup < 60
    assert sorted(runner.folder.iterdir()) == before
    # With more workers of the same kind the tiles are shared by more.
    more = planned(config, SerialCluster(kind="serial"), workers=3, calibrate=False)
    assert (more.resources.workers, more.rates.measured) == (3, False)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    document = {
        "data": {"train": {"rows": 10**6, "features": 20}, "task": "none"},
        "kernel": {"architecture": ARCHITECTURE},
        "spectrum": {"method": "none"},
        "out": str(tmp_path / "run"),
    }
    config = validate(RunConfig, document, "test")
    plan = planned(config, SerialCluster(kind="serial", memory="2 GB"))
    assert plan.rates.measured
    assert plan.problem.rows == 10**6
    with pytest.raises(InputError, match="only sizes are given"):
        prepare(config, SerialCluster(kind="serial"))
    with pytest.raises(InputError, match="hypothetical"):
        prepare(config, HypotheticalCluster(kind="hypothetical", workers=3))
    assert not (tmp_path / "run").exists()


def test_a_million_images_on_gpus() -> None:
    config = load_run(EXAMPLES / "million.yaml")
    plan = planned(config, load_cluster(config.cluster, EXAMPLES))
    document = show.document(plan)
    assert document["rows"] == 10**6
    assert document["stages"][0]["tasks"] < 50_000
    assert document["store_bytes"] == pytest.approx(4 * 10**12 / 2, rel=0.1)
    assert document["pass"]["advice"] == "store"
    # neural-tangents took 316 V100-hours for 60,000 images in float64.
    pairs = (10**6 / 60_000) ** 2
    assert 0.02 < document["gpu_hours"] / (316 * pairs) < 0.5


def test_a_shipped_example_of_the_size_of_cifar() -> None:
    plan = planned(
        load_run(EXAMPLES / "cifar10_size.yaml"), LocalCluster(workers=2, memory="1.5 GB"), calibrate=False
    )
    assert (plan.problem.rows, plan.problem.test_rows) == (50_000, 10_000)
