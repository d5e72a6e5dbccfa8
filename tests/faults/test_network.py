"""A worker whose cable is cut: for a moment, or for so long that the run goes on without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import FULL, PATIENCE, ROOT, Contents, Run

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


class Cable:
    """Between this machine and a host of its own (a network namespace), which shares the file system."""

    def __init__(self) -> None:
        self.here, self.host = f"ntk{os.getpid() % 100000}", f"ntk-host-{os.getpid()}"

    def lay(self) -> None:
        for command in (
            f"netns add {self.host}",
            f"link add {self.here} type veth peer name eth0 netns {self.host}",
            f"addr add 10.213.77.1/30 dev {self.here}",
            f"link set {self.here} up",
            f"-n {self.host} addr add 10.213.77.2/30 dev eth0",
            f"-n {self.host} link set eth0 up",
            f"-n {self.host} link set lo up",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)

    def cut(self) -> None:
        subprocess.run(["ip", "-n", self.host, "link", "set", "eth0", "down"], check=True)

    def mend(self) -> None:
        subprocess.run(["ip", "-n", self.host, "link", "set", "eth0", "up"], check=True)

    def remove(self) -> None:
        subprocess.run(["ip", "link", "del", self.here], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.host], check=False, capture_output=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("a host of its own needs root and iproute2")
    cable = Cable()
    try:
        cable.lay()
        yield cable
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a host of its own cannot be made here: {error.stderr}")
    finally:
        cable.remove()


@pytest.fixture
def meeting(run: Run, cable: Cable, tmp_path: Path) -> Iterator[Path]:
    """Two workers that come by themselves, one here and one at the other end of the cable."""
    meeting = tmp_path / "jobs" / "scheduler.json"
    environment = {
        **os.environ, "NTK_RENDEZVOUS": str(meeting), "NTK_WORKER_THREADS": "1", "PYTHONPATH": str(ROOT),
        "TILE_SECONDS": "0.15" if FULL else "0.06",
    }  # fmt: skip
    attendant = [sys.executable, "-m", "pipeline.runtime.attendant"]
    commands = [[*attendant, cable.here], ["ip", "netns", "exec", cable.host, *attendant, "eth0"]]
    with (tmp_path / "attendants.log").open("w") as log:
        processes = [subprocess.Popen(c, env=environment, stderr=log, stdout=log, cwd=ROOT) for c in commands]
    (run.config.parent / "cluster.yaml").write_text(
        "local: {workers: 2, dashboard: false, memory: 1 GB}\nserial: {kind: serial, memory: 1 GB}\n"
        f"apart: {{kind: slurm, workers_per_node: 2, memory: 1 GB, interface: {cable.here}, ready_seconds: 60}}\n"
    )
    yield meeting
    for process in processes:
        process.kill()
        process.wait()


def _workers(run: Run) -> set[str]:
    """Who wrote a tile."""
    lines = [line for file in run.out.glob("journal/*.jsonl") for line in file.read_bytes().splitlines()]
    entries = [json.loads(line[9:]) for line in lines]
    return {entry["worker"] for entry in entries if entry.get("array", "").startswith("gram/")}


@pytest.mark.parametrize("seconds", [2.0, 60.0] if FULL else [2.0])
def test_cable_cut_and_mended(
    run: Run, uninterrupted: Contents, cable: Cable, meeting: Path, seconds: float,
    row: Callable[[str, str], None],
) -> None:  # fmt: skip
    run.start("gram", "--cluster", "apart", NTK_RENDEZVOUS=str(meeting))
    run.wait_for(lambda: len(_workers(run)) == 2)
    cable.cut()
    began = time.monotonic()
    outlasted = run.poll(seconds)
    cable.mend()
    run.ends(0, PATIENCE)
    assert run.contents() == uninterrupted
    if seconds > PATIENCE:
        assert outlasted == 0, "it waited for the worker that was cut off"
        assert time.monotonic() - began < PATIENCE + 15
        row("network to a worker cut for good", "the other finished, identical")
    else:
        row(f"network to a worker cut for {seconds:g} s and restored", "identical, the same run went on")
