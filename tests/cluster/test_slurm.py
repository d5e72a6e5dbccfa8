"""A real Slurm, two nodes with two pretended GPUs each: whatever happens to a job, its run equals a local one.

Needs Debian's slurm-wlm and munge, and the script `slurm-up` in $NTK_INFRA (default: ../shared/infra beside this
repository); skipped where they are not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_run

ROOT = Path(__file__).parent.parent.parent
INFRA = Path(os.environ.get("NTK_INFRA", ROOT.parent / "shared" / "infra"))
RUN = """
data: {train: {source: digits}, split: {test: 0.2, seed: 0}}
kernel:
  architecture: [{Dense: {out_dim: 8, W_std: 1.5, b_std: 0.05}}, Relu, {Dense: {out_dim: 1}}]
gram: {tile: 96}
solve: {ridge: [1e-4]}
spectrum: {method: none}
"""
CLUSTERS = """
gpus: {kind: slurm, nodes: 2, gpus_per_node: 2, memory: 500 MB, coordinator_memory: 600 MB, walltime: "30"}
broken: {kind: slurm, memory: 500 MB, coordinator_memory: 600 MB, walltime: "30", setup: ["exit 9"]}
"""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where runs are described, with Slurm up."""
    if not os.environ.get("NTK_CLUSTER_TESTS"):
        pytest.skip("tests against a real batch system: ./scripts/test --cluster")
    if not (INFRA / "slurm-up").exists():
        pytest.skip(f"no slurm-up in {INFRA}")
    if not (shutil.which("sbatch") and shutil.which("munged", path=f"{os.environ['PATH']}:/usr/sbin")):
        pytest.skip("no Slurm here: apt-get install --no-install-recommends slurm-wlm munge")
    here = tmp_path_factory.mktemp("runs of a person")
    (here / "run.yaml").write_text(RUN)
    (here / "cluster.yaml").write_text(CLUSTERS)
    slurm = Path(f"/tmp/ntk-slurm-{os.getpid()}")  # its sockets need a short path
    up = subprocess.run(
        [INFRA / "slurm-up", "-n", "2", "-g", "2", "-d", slurm, "-p", "27800"], capture_output=True
    )
    assert up.returncode == 0, up.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(slurm / "slurm.conf"))
        yield here
    subprocess.run([INFRA / "slurm-down", "-d", slurm], check=False, capture_output=True)


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
    assert ours.metrics["predict"] == theirs.metrics["predict"]


def logs(run: Path) -> str:
    return "".join(file.read_text() for file in sorted((run / "jobs").glob("*.log")))


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
