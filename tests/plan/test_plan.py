"""The plan of a run: it fits what it promises, refuses what cannot fit, and proposes what would."""

from __future__ import annotations

import dataclasses
import re

import pytest

from pipeline.config.cluster import HypotheticalCluster, LocalCluster, SerialCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.errors import InputError
from pipeline.plan import show
from pipeline.plan.plan import Problem
from pipeline.plan.planner import make_plan
from pipeline.plan.resources import resolve

GB = 10**9


def config(**fields: object) -> RunConfig:
    data = {"train": {"x": "x", "y": "y"}, "test": {"x": "t"}}
    return validate(RunConfig, {"data": data, "kernel": {"architecture": "Relu"}} | fields, "test")


def problem(rows: int = 10_000, bytes_per_pair: float = 48.0) -> Problem:
    return Problem(
        rows=rows, test_rows=1000, outputs=10, row_size=784, flops_per_pair=2000.0, bytes_per_pair=bytes_per_pair,
        kernels=1, itemsize=8,
    )  # fmt: skip


def resources(memory: str = "4 GB", workers: int = 2):
    return resolve(LocalCluster(workers=workers, memory=memory), cores=workers, total=64 * GB)


@pytest.mark.parametrize("memory", ["450 MB", "1 GB", "4 GB"])
@pytest.mark.parametrize("rows", [100, 1437, 8192, 12_345])
def test_auto_tile_fits_and_feeds_every_worker(memory: str, rows: int) -> None:
    plan = make_plan(config(), problem(rows), resources(memory))
    assert all(stage.peak <= plan.resources.memory for stage in plan.stages if not stage.skipped)
    assert plan.grid.count >= min(2 * plan.resources.workers, rows // 64)


def test_a_tile_that_cannot_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(InputError, match="tile 8192: a worker would need") as caught:
        make_plan(config(gram={"tile": 8192}), problem(), resources("1 GB"))
    proposed = re.search(r"set gram.tile to (\d+)", str(caught.value.hint))
    assert proposed is not None
    make_plan(
        config(gram={"tile": int(proposed[1])}, spectrum={"method": "none"}), problem(), resources("1 GB")
    )


def test_nothing_fits_into_too_little() -> None:
    with pytest.raises(InputError, match="the limit is 300 MB"):
        make_plan(config(), problem(), resources("300 MB"))


def test_a_matrix_that_fits_a_worker_is_solved_in_its_memory() -> None:
    def planned(rows: int, memory: str, **solve: object) -> tuple[int, bool]:
        wanted = config(solve={"method": "cholesky"} | solve, spectrum={"method": "none"}, gram={"tile": 256})
        stage = make_plan(wanted, problem(rows), resources(memory)).stage("solve")
        assert stage is not None
        return stage.peak, "in the memory of a worker" in str(stage.why)

    peak, whole = planned(8192, "1 GB")
    assert whole
    assert 8 * 8192**2 < peak < GB
    assert not planned(8192, "900 MB")[1]
    assert not planned(8192, "1 GB", in_memory=False)[1]
    assert not planned(40_000, "30 GB")[1], "hours of work would be lost with a worker"
    assert planned(40_000, "30 GB", in_memory=True)[1]
    with pytest.raises(InputError, match=r"dense solve task.*most of it is matrix"):
        planned(8192, "900 MB", in_memory=True)


def test_spectrum_that_does_not_fit() -> None:
    plan = make_plan(config(solve={"method": "none"}), problem(5_000_000), resources("450 MB"), tile=64)
    stage = plan.stage("spectrum")
    assert stage is not None
    assert "a worker would need" in stage.skipped
    assert "not done" in show.text(plan)
    with pytest.raises(InputError, match=r"spectrum.method: eigh"):
        make_plan(config(spectrum={"method": "eigh"}), problem(50_000), resources("2 GB"))


@pytest.mark.parametrize(
    ("rows", "memory", "count", "method"),
    [
        (5_000, "4 GB", "all", "eigh"),
        (50_000, "4 GB", "all", "band"),
        (8_192, "105 GB", 200, "eigh"),
        (8_193, "105 GB", 200, "lanczos"),
        (8_192, "1.5 GB", 200, "lanczos"),
        (50_000, "2 GB", 200, "lanczos"),
        (50_000, "105 GB", 200, "lanczos"),
        (50_000, "105 GB", "all", "eigh"),
        (50_000, "105 GB", 5_001, "eigh"),
        (50_000, "4 GB", 20_000, "band"),
        (400_000, "4 GB", "all", "density"),
    ],
)
def test_auto_chooses_by_rows_memory_and_what_is_asked(
    rows: int, memory: str, count: object, method: str
) -> None:
    plan = make_plan(
        config(spectrum={"count": count}, solve={"method": "none"}), problem(rows), resources(memory)
    )
    stage = plan.stage("spectrum")
    assert stage is not None
    assert (stage.method, stage.skipped) == (method, "")
    assert stage.peak <= plan.resources.memory
    assert stage.passes > 0
    assert method in show.text(plan)


def test_a_stored_tile_is_kept_by_auto() -> None:
    assert make_plan(config(), problem(), resources(), tile=192).grid.tile == 192


def test_bytes_of_the_matrix_are_exact() -> None:
    plan = make_plan(config(gram={"tile": 100}), problem(1234), resources())
    gram = plan.stage("gram")
    assert gram is not None
    blocks = [100] * 12 + [34]
    assert gram.writes == 8 * sum(a * b for i, a in enumerate(blocks) for b in blocks[i:])


def test_twice_the_workers_take_half_the_time() -> None:
    two, four = (make_plan(config(), problem(), resources(workers=w), tile=256) for w in (2, 4))
    # Apart from starting them, from the cut into tasks, which differs, and from what one process does for all.
    rates = dataclasses.replace(two.rates, startup=0.0, task_overhead=0.0)
    two, four = (dataclasses.replace(plan, rates=rates) for plan in (two, four))
    for a, b in zip(two.stages, four.stages, strict=True):
        a, b = (dataclasses.replace(stage, serial=0.0, passes=0.0) for stage in (a, b))
        if a.tasks >= 4:
            assert two.seconds(a) == pytest.approx(2 * four.seconds(b))


def test_price() -> None:
    document = show.document(make_plan(config(), problem(), resources()), price=3.0)
    assert document["cost"] == pytest.approx(3 * document["worker_hours"])


def test_resources_of_a_machine() -> None:
    assert resolve(LocalCluster(), cores=2, total=20 * GB).workers == 2
    big = resolve(LocalCluster(), cores=64, total=256 * GB)
    assert (big.workers, big.threads) == (16, 4)
    assert big.memory * big.workers <= 256 * GB
    assert resolve(SerialCluster(kind="serial", memory="1 GB"), cores=8, total=64 * GB).memory == GB


def test_rates_measured_and_assumed_are_told_apart() -> None:
    plan = make_plan(config(), problem(), resources())
    measured = dataclasses.replace(
        plan, rates=dataclasses.replace(plan.rates, pair_seconds=1e-6, diagonal_seconds=1e-6, measured=True)
    )
    assert "not calibrated" in show.text(plan)
    assert "from measured tiles" in show.text(measured)
    gram = measured.stages[0]
    busy = measured.grid.count * measured.grid.tile**2 * 1e-6 / 2
    assert measured.seconds(gram) == pytest.approx(busy + measured.rates.startup, rel=0.05)


def test_what_is_cheaper_to_recompute_than_to_read() -> None:
    plan = make_plan(config(), problem(), resources())
    cheap, dear = (
        dataclasses.replace(plan, rates=dataclasses.replace(plan.rates, pair_seconds=seconds))
        for seconds in (8 / plan.rates.read / 2, 8 / plan.rates.read * 2)
    )
    assert (cheap.advice, dear.advice) == ("recompute", "store")
    assert show.document(dear)["pass"]["bytes"] == dear.grid.count * dear.grid.tile**2 * 8


def test_machines_that_are_not_there() -> None:
    gpus = resolve(HypotheticalCluster(kind="hypothetical", workers=64, device="h100", memory="80 GB"))
    images = dataclasses.replace(problem(200_000), flops_per_pair=1e8)
    plan = make_plan(config(spectrum={"method": "none"}), images, gpus)
    document = show.document(plan, price=2.0)
    assert document["gpu_hours"] == document["worker_hours"] == document["cost"] / 2
    slower = make_plan(config(spectrum={"method": "none"}), images, dataclasses.replace(gpus, device="v100"))
    assert slower.seconds(slower.stages[0]) > 2 * plan.seconds(plan.stages[0])
    assert "one H100" in show.text(plan)
