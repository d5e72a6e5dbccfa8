"""A real Slurm, two nodes with two pretended GPUs each: whatever happens to a job, its run equals a local one.

Needs Debian's slurm-wlm and munge; skipped where they are not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_run
from tests.cluster.slurm import Slurm, missing, slurm_up

RUN = """
data: {train: {source: digits}, split: {test: 0.2, seed: 0}}
kernel:
  architecture: [{Dense: {out_dim: 8, W_std: 1.5, b_std: 0.05}}, Relu, {Dense: {out_dim: 1}}]
gram: {tile: 96}
solve: {ridge: [1e-4], in_memory: false}
spectrum: {method: none}
"""
CLUSTERS = """
gpus: {kind: slurm, nodes: 2, gpus_per_node: 2, memory: 500 MB, coordinator_memory: 600 MB, walltime: "30",
       scratch: "SCRATCH"}
short: {kind: slurm, workers_per_node: 1, memory: 500 MB, coordinator_memory: 600 MB, walltime: "1", grace: 10}
broken: {kind: slurm, memory: 500 MB, coordinator_memory: 600 MB, walltime: "30", setup: ["exit 9"]}
"""
SLOW = """
import time
import numpy as np

def kernel(x1, x2):
    time.sleep(1)
    return np.exp(-0.01 * np.sum((x1[:, None] - (x1 if x2 is None else x2)[None]) ** 2, -1))
"""
SLOW_KERNEL = """kernel: {function: "slow:kernel"}
gram: {tile: 96}
solve: {ridge: [1e-4], in_memory: false}
spectrum: {method: none}
"""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    if not os.environ.get("NTK_CLUSTER_TESTS"):
        pytest.skip("tests against a real batch system: ./scripts/test --cluster")
    if lack := missing():
        pytest.skip(lack)
    with slurm_up(Path(f"/tmp/ntk-slurm-{os.getpid()}")) as up:
        yield up


@pytest.fixture(scope="module")
def folder(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs are described, with Slurm up."""
    here = tmp_path_factory.mktemp("runs of a person")
    (here / "run.yaml").write_text(RUN)
    (here / "scratch").mkdir()
    (here / "cluster.yaml").write_text(CLUSTERS.replace("SCRATCH", str(here / "scratch")))
    return here


@pytest.fixture(scope="module")
def reference(folder: Path) -> Path:
    """The same run on this machine."""
    ntk(folder, "run", "run.yaml", "--cluster", "serial", "--out", "reference")
    return folder / "reference"


def ntk(folder: Path, *arguments: str, code: int = 0) -> Any:
    """The document of a command."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipeline", *arguments, "--json"], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def until(true: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.3)


def tiles_done(folder: Path, out: str) -> int:
    if not (folder / out / "run.yaml").exists():
        return 0
    return ntk(folder, "status", out)["stages"][0]["tiles_done"]


def assert_same(reference: Path, other: Path) -> None:
    ours, theirs = open_run(reference), open_run(other)
    np.testing.assert_array_equal(ours.gram("ntk").to_numpy(), theirs.gram("ntk").to_numpy())
    # BLAS adds in another order with another number of threads, which a node decides: the last digits of a solution.
    for own, other_one in zip(
        ours.metrics["predict"]["ridges"], theirs.metrics["predict"]["ridges"], strict=True
    ):
        assert own == pytest.approx(other_one, rel=1e-10)


def logs(run: Path) -> str:
    return "".join(file.read_text() for file in sorted((run / "jobs").glob("*.log")))


def test_on_four_workers(folder: Path, reference: Path) -> None:
    """The short test: one job from its submission to its end, its inputs staged and a report on its work written."""
    ntk(folder, "submit", "run.yaml", "--cluster", "gpus", "--out", "plain", "--performance-report")
    document = ntk(folder, "submit", "run.yaml", "--out", "plain", "--watch")
    assert document["jobs"][0]["state"] == "COMPLETED", logs(folder / "plain")
    assert_same(reference, folder / "plain")
    seen = re.findall(r"CUDA_VISIBLE_DEVICES=(\d)", logs(folder / "plain"))
    assert sorted(seen) == ["0", "0", "1", "1"]
    assert "inputs are read from the store" not in logs(folder / "plain")
    (copies,) = (folder / "scratch").glob("ntk-inputs-*")
    assert list(copies.iterdir()) == [], "the last worker removes what was staged"
    assert "<html" in (folder / "plain/performance-report.html").read_text()


def test_requeued_in_the_middle(folder: Path, reference: Path) -> None:
    (job,) = ntk(folder, "submit", "run.yaml", "--cluster", "gpus", "--out", "whole")["jobs"]
    assert "is not over" in ntk(folder, "submit", "run.yaml", "--cluster", "gpus", "--out", "whole", code=2)["error"][
        "message"
    ]  # fmt: skip
    until(lambda: tiles_done(folder, "whole") > 3)
    subprocess.run(["scontrol", "requeue", job], check=True)
    document = ntk(folder, "submit", "run.yaml", "--out", "whole", "--watch")
    assert document["jobs"][0]["state"] == "COMPLETED", logs(folder / "whole")
    assert document["jobs"][0]["attempts"] == 2
    assert_same(reference, folder / "whole")
    seen = re.findall(r"CUDA_VISIBLE_DEVICES=(\d)", logs(folder / "whole"))
    assert sorted(seen) == ["0", "0", "0", "0", "1", "1", "1", "1"], "in two attempts, two on each node"
    assert not (folder / "whole/jobs/keys").exists()


def test_array_and_what_depends_on_it(folder: Path, reference: Path) -> None:
    jobs = ntk(folder, "submit", "run.yaml", "--cluster", "gpus", "--out", "shares", "--array", "2")["jobs"]
    assert len(jobs) == 2
    document = ntk(folder, "submit", "run.yaml", "--out", "shares", "--watch")
    assert [job["state"] for job in document["jobs"]] == ["COMPLETED", "COMPLETED"], logs(folder / "shares")
    assert_same(reference, folder / "shares")


def test_what_depends_on_a_failure_is_cancelled(folder: Path) -> None:
    ntk(folder, "submit", "run.yaml", "--cluster", "broken", "--out", "broken", "--array", "1")
    document = ntk(folder, "submit", "run.yaml", "--out", "broken", "--watch")
    assert [job["state"] for job in document["jobs"]] == ["FAILED", "CANCELLED"]


def test_cancelled_stays_cancelled(folder: Path, reference: Path) -> None:
    ntk(folder, "submit", "run.yaml", "--cluster", "gpus", "--out", "ended")
    until(lambda: tiles_done(folder, "ended") > 0)
    assert len(ntk(folder, "submit", "run.yaml", "--out", "ended", "--cancel")["cancelled"]) == 1
    document = ntk(folder, "submit", "run.yaml", "--out", "ended", "--watch")
    assert document["jobs"][0]["state"] == "CANCELLED"
    ntk(folder, "run", "run.yaml", "--cluster", "serial", "--out", "ended")
    assert_same(reference, folder / "ended")


def slow_run(folder: Path) -> None:
    """A run whose Gram matrix takes minutes."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "slow.yaml").write_text(RUN.split("kernel:")[0] + SLOW_KERNEL)
    if not (folder / "slow-reference").exists():
        (folder / "slow.py").write_text(SLOW.replace("time.sleep(1)", "pass"))
        ntk(folder, "run", "slow.yaml", "--cluster", "serial", "--out", "slow-reference", "--allow-code")
        (folder / "slow.py").write_text(SLOW)


def test_a_node_that_dies_in_the_middle(folder: Path, slurm: Slurm) -> None:
    slow_run(folder)
    ntk(folder, "submit", "slow.yaml", "--cluster", "gpus", "--out", "half", "--allow-code")
    until(lambda: tiles_done(folder, "half") > 5)
    slurm.kill_node(2)
    try:
        document = ntk(folder, "submit", "slow.yaml", "--out", "half", "--watch")
    finally:
        slurm.start_node(2)
    assert document["jobs"][0]["state"] == "COMPLETED", logs(folder / "half")
    assert document["jobs"][0]["attempts"] == 1, "the first node goes on"
    assert_same_gram(folder / "slow-reference", folder / "half")


def test_a_time_limit_that_is_too_short(folder: Path, slurm: Slurm) -> None:
    slow_run(folder)
    until(lambda: "n2" in subprocess.check_output(["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], text=True))
    ntk(folder, "submit", "slow.yaml", "--cluster", "short", "--out", "short", "--allow-code")
    document = ntk(folder, "submit", "slow.yaml", "--out", "short", "--watch")
    assert document["jobs"][0]["state"] == "COMPLETED", logs(folder / "short")
    assert document["jobs"][0]["attempts"] > 1
    assert_same_gram(folder / "slow-reference", folder / "short")


def assert_same_gram(reference: Path, other: Path) -> None:
    ours, theirs = open_run(reference), open_run(other)
    np.testing.assert_array_equal(ours.gram("ntk").to_numpy(), theirs.gram("ntk").to_numpy())
