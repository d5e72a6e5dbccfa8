"""Kinds `ssh` and `address` on three hosts with addresses of their own: TLS everywhere, cables cut and mended.

Needs root, the scripts `netns-up` and `netns-down` in $NTK_INFRA, iproute2, openssh-server; skipped where they are not.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import open_run
from pipeline.runtime import tls
from tests.cluster.hosts import Hosts, missing, three_hosts
from tests.stranger import answer

INFRA = Path(os.environ.get("NTK_INFRA", Path(__file__).parents[3] / "shared" / "infra"))
TILES = 136
RUN = """
data: {train: {x: x.npy, y: y.npy}, split: {test: 0.2, seed: 0}}
kernel: {function: "slow:kernel"}
gram: {tile: 16}
solve: {ridge: [1e-4], in_memory: false}
spectrum: {method: none}
"""
SLOW = """
import time
import numpy as np

def kernel(x1, x2):
    time.sleep(0.3)
    return np.exp(-0.1 * np.sum((x1[:, None] - (x1 if x2 is None else x2)[None]) ** 2, -1))
"""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if not os.environ.get("NTK_CLUSTER_TESTS"):
        pytest.skip("tests on several hosts: ./scripts/test --cluster")
    if lack := missing(INFRA):
        pytest.skip(lack)
    with three_hosts(INFRA, tmp_path_factory.mktemp("hosts")) as made:
        yield made


@pytest.fixture(scope="module")
def folder(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("runs of a person")
    rng = np.random.default_rng(0)
    np.save(here / "x.npy", rng.standard_normal((320, 5)))
    np.save(here / "y.npy", np.arange(320) % 2)
    (here / "run.yaml").write_text(RUN)
    (here / "slow.py").write_text(SLOW)
    ssh = ["ssh", "-T", "-F", str(hosts.folder / "ssh_config")]
    # ssh does not bring this machine's choice of BLAS kernels along, without which last digits may differ.
    chosen = [
        f"export {name}={shlex.quote(value)}" for name, value in os.environ.items() if "OPENBLAS" in name
    ]
    entry = {
        "kind": "ssh", "hosts": [hosts.name(2), hosts.name(3)], "memory": "500 MB", "ready_seconds": 60,
        "setup": ["read -r line || true", *chosen], "ssh_command": ssh, "scratch": str(here / "scratch"),
    }  # fmt: skip
    (here / "cluster.yaml").write_text(json.dumps({"lab": entry}))
    return here


@pytest.fixture(scope="module")
def reference(folder: Path) -> Path:
    """The same run on this machine, by the same function without its pause."""
    (folder / "quick").mkdir()
    (folder / "quick" / "slow.py").write_text(SLOW.replace("time.sleep(0.3)", "pass"))
    (folder / "quick" / "run.yaml").write_text(RUN.replace("x.npy", "../x.npy").replace("y.npy", "../y.npy"))
    command = [
        sys.executable,
        "-P",
        "-m",
        "pipeline",
        "run",
        "quick/run.yaml",
        "--allow-code",
        "--cluster",
        "serial",
    ]
    subprocess.run([*command, "--out", "reference"], cwd=folder, check=True, capture_output=True)
    return folder / "reference"


class Run:
    """`ntk run` on the first host."""

    def __init__(self, hosts: Hosts, folder: Path, out: str, cluster: str = "lab", *options: str):
        command = [
            *hosts.on(1),
            sys.executable,
            "-P",
            "-m",
            "pipeline",
            "run",
            "run.yaml",
            "--out",
            out,
            "--cluster",
        ]
        self.out = folder / out
        self.log = folder / f"{out}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, cluster, "--allow-code", *options], cwd=folder, stdout=log, stderr=log
            )

    def until(self, true: Callable[[], bool], seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"waited in vain\n{self.log.read_text()}"
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.2)

    def tiles(self) -> int:
        return sum(file.name.isdecimal() for file in self.out.glob("store.zarr/gram/ntk/c/*/*"))

    def finish(self, code: int = 0) -> str:
        assert self.process.wait(240) == code, self.log.read_text()
        return self.log.read_text()

    def meeting(self) -> dict[str, Any]:
        (file,) = (self.out / "jobs").glob("scheduler-*.json")
        return json.loads(file.read_text())


def assert_same(reference: Path, run: Run) -> None:
    ours, theirs = open_run(reference), open_run(run.out)
    np.testing.assert_array_equal(ours.gram("ntk").to_numpy(), theirs.gram("ntk").to_numpy())
    assert ours.metrics["predict"] == theirs.metrics["predict"]


def attendants(hosts: Hosts, number: int) -> int:
    pids = subprocess.check_output(["ip", "netns", "pids", hosts.name(number)], text=True).split()
    lines = [Path(f"/proc/{pid}/cmdline") for pid in pids]
    return sum(b"pipeline.runtime" in line.read_bytes() for line in lines if line.exists())


def test_a_run_and_who_is_kept_out(hosts: Hosts, folder: Path, reference: Path, tmp_path: Path) -> None:
    run = Run(hosts, folder, "whole")
    run.until(lambda: run.tiles() > 5)
    meeting = run.meeting()
    address = meeting["address"]
    assert address.startswith(f"tls://{hosts.address(1)}:")
    tls.issue(tmp_path / "foreign")
    nobody = {**tls.settings_of(meeting["keys"] + "/ca.pem", "", "")}
    for stranger in (2, 3):
        on = hosts.on(stranger)
        assert answer(address, tls.dask_settings(Path(meeting["keys"])), on=on) == "OK"
        assert answer(address, tls.dask_settings(tmp_path / "foreign"), on=on) != "OK"
        assert answer(address, nobody, on=on) != "OK", "no certificate of its own"
        assert answer(address.replace("tls://", "tcp://"), {}, on=on) != "OK"
    for number in (1, 2, 3):
        own = {f"{hosts.address(number)}", "127.0.0.1"}
        assert {place.rpartition(":")[0] for place in hosts.listening(number)} <= own
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes()
        except OSError:
            continue
        assert b"BEGIN" not in command and b"key.pem" not in command, (
            "no key among the arguments of a process"
        )
    run.finish()
    assert_same(reference, run)
    assert not (run.out / "jobs/keys").exists()
    assert attendants(hosts, 2) == attendants(hosts, 3) == 0
    logs = "".join(file.read_text() for file in (run.out / "jobs").glob("worker-*.log"))
    assert f"{hosts.name(2)}_0: CUDA" in logs
    assert f"{hosts.name(3)}_0: CUDA" in logs
    assert "inputs are read from the store" not in logs
    (copies,) = (folder / "scratch").glob("ntk-inputs-*")
    assert list(copies.iterdir()) == [], "the last worker removes what was staged"


def test_a_cable_cut_and_mended(hosts: Hosts, folder: Path, reference: Path) -> None:
    """Twenty seconds of silence cost the tile in flight at most."""
    run = Run(hosts, folder, "mended")
    run.until(lambda: run.tiles() > 20)
    hosts.cut(3)
    time.sleep(20)
    hosts.mend(3)
    text = run.finish()
    assert len(re.findall("tried again", text)) <= 1, text
    assert_same(reference, run)
    assert run.tiles() == TILES


def test_a_cable_cut_for_good(hosts: Hosts, folder: Path, reference: Path) -> None:
    run = Run(hosts, folder, "cut")
    run.until(lambda: run.tiles() > 20)
    hosts.cut(3)
    try:
        text = run.finish()
        assert len(re.findall("tried again", text)) <= 2, text
        assert_same(reference, run)
    finally:
        hosts.mend(3)


def test_a_coordinator_killed_leaves_nobody_behind(hosts: Hosts, folder: Path, reference: Path) -> None:
    run = Run(hosts, folder, "killed")
    run.until(lambda: run.tiles() > 5)
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    end = time.monotonic() + 20
    while attendants(hosts, 2) + attendants(hosts, 3):
        assert time.monotonic() < end, "workers outlive their coordinator"
        time.sleep(0.2)
    again = Run(hosts, folder, "killed")
    again.finish()
    assert_same(reference, again)


def test_a_host_that_lets_nobody_in(hosts: Hosts, folder: Path) -> None:
    clusters = json.loads((folder / "cluster.yaml").read_text())
    clusters["wrong"] = clusters["lab"] | {"ssh_command": ["ssh", "-o", "BatchMode=yes"], "ready_seconds": 3}
    (folder / "cluster.yaml").write_text(json.dumps(clusters))
    text = Run(hosts, folder, "nobody", "wrong").finish(3)
    assert f"none of 2 came within 3 s; {hosts.name(2)}-0: ended with exit code 255" in text
