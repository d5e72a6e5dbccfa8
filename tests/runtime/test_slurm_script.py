"""Batch scripts: read by a shell and by Slurm as they were meant, whatever the paths are called."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.config.cluster import Clusters, SlurmCluster
from pipeline.config.load import validate
from pipeline.errors import InputError
from pipeline.runtime.slurm_script import Job, array_script, run_script

FULL = {
    "kind": "slurm", "nodes": 3, "gpus_per_node": 4, "cpus": 8, "memory": "32 GB", "walltime": "2-12",
    "partition": "gpu", "account": "physics", "qos": "high", "constraint": "a100|h100", "gpu_type": "a100",
    "extra": ["--mail-type=END"], "setup": ["module load cuda/12.4"], "interface": "ib0",
    "scratch": "/local/my scratch",
}  # fmt: skip
SMALL = {"kind": "slurm", "memory": "1 GB"}


def cluster(entry: dict[str, object]) -> SlurmCluster:
    found = validate(Clusters, {"x": entry}, "cluster.yaml").root["x"]
    assert isinstance(found, SlurmCluster)
    return found


def job(folder: str) -> Job:
    home = Path(folder)
    return Job(
        "ntk-run",
        home / "jobs",
        home / "jobs/run.yaml",
        "x",
        home / "jobs/cluster.yaml",
        home,
        "/usr/bin/python3",
    )


@pytest.mark.parametrize("entry", [FULL, SMALL], ids=["full", "small"])
@pytest.mark.parametrize("folder", ["/data/run", '/data/it\'s a "$HOME" `id`; run'])
def test_a_shell_accepts_them(entry: dict[str, object], folder: str) -> None:
    checker = shutil.which("shellcheck")
    for script in (run_script(job(folder), cluster(entry)), array_script(job(folder), cluster(entry), 7)):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        if checker:
            # It takes quoted dollars for a mistake (SC2016, an `info`).
            severity = "--severity=style" if "$" not in folder else "--severity=warning"
            subprocess.run([checker, "--shell=bash", severity, "-"], input=script, text=True, check=True)
        words = [word for line in script.splitlines() if "-m pipeline " in line for word in shlex.split(line)]
        assert folder in words, "a path is one word, with nothing expanded in it"


def test_what_slurm_is_asked_for() -> None:
    script = run_script(job("/data/run"), cluster(FULL))
    for line in (
        "--nodes=3", "--ntasks-per-node=4", "--gres=gpu:a100:4", "--time=2-12", "--signal=B:TERM@120", "--requeue",
        "--partition=gpu", "--mail-type=END",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "srun --ntasks=12 " in script
    assert "--gpus-per-task=1" in script
    assert "gres" not in run_script(job("/data/run"), cluster(SMALL))
    assert "#SBATCH --array=1-5\n" in array_script(job("/data/run"), cluster(FULL), 5)
    exports = [line for line in script.splitlines() if line.startswith("export TMPDIR")]
    shown = subprocess.run(
        ["bash", "-c", "\n".join([*exports, 'echo "$TMPDIR|$NTK_SCRATCH"'])], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == "/local/my scratch|/local/my scratch"


def test_a_performance_report_is_asked_of_the_coordinator() -> None:
    asked = dataclasses.replace(job("/data/run"), performance_report=True)
    (line,) = [line for line in run_script(asked, cluster(FULL)).splitlines() if " -m pipeline run " in line]
    assert shlex.split(line)[-2:] == ["--performance-report", "&"]
    assert "--performance-report" not in array_script(asked, cluster(FULL), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": "a b"}, "x.partition: must be one word"),
        ({"walltime": "soon"}, "x.walltime: must be a time limit"),
        ({"extra": ["--a\n--b"]}, "x.extra.0: must be one line"),
        ({"scratch": "local"}, "x.scratch: must be an absolute path"),
        ({"nodes": 0}, "x.nodes: must be >= 1"),
        ({"memory": "much"}, "x.memory: not a size"),
        ({"gpus": 3}, "x.gpus: unknown key"),
    ],
)
def test_bad_entries_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster(SMALL | change)
