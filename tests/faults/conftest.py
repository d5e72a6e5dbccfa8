"""Real runs in processes of their own, to be killed, stopped and damaged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.faults import table

FULL = os.environ.get("NTK_FAULTS") == "full"
"""Whether the long form runs: more moments, the shipped example."""

RUN = """
data:
  train: {{x: x.npy, y: y.npy}}
  split: {{test: 0.2}}
kernel:
  architecture:
    - Dense: {{out_dim: 8, W_std: 1.5, b_std: 0.05}}
    - Relu
    - Dense: {{out_dim: 1}}
gram: {{tile: 64}}
solve: {{ridge: [1.0e-4, 1.0e-2]}}
out: {out}
"""


def pytest_terminal_summary(terminalreporter) -> None:
    if table.ROWS:
        terminalreporter.section("injected failures")
        terminalreporter.write_line(table.text())


class Run:
    """One `ntk run` as a process group of its own."""

    def __init__(self, folder: Path, config: Path, out: Path):
        self.folder, self.config, self.out = folder, config, out
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "pipeline",
            "run",
            str(self.config),
            "--out",
            str(self.out),
            *arguments,
        ]
        log = (self.folder / "log.txt").open("ab")
        with log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        return self.process

    def finish(self, *arguments: str, code: int = 0) -> None:
        """Run to the end; the exit code must be this."""
        process = self.start(*arguments)
        assert process.wait(timeout=240) == code, self.log()

    def kill(self) -> None:
        """SIGKILL to the coordinator and everything it started."""
        assert self.process is not None
        family = [self.process.pid, *(child.pid for child in self.children())]
        for pid in family:
            send(pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def children(self) -> list[psutil.Process]:
        assert self.process is not None
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[int]:
        """Worker processes, once there are two of them."""
        assert self.process is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            found = [child.pid for child in self.children() if "worker" in " ".join(command_line(child))]
            if len(found) >= 2:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no two workers came up\n{self.log()}")

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")[-4000:]

    def tiles(self) -> int:
        """Tiles of the Gram matrix whose file is there."""
        return sum(file.name.isdecimal() for file in self.out.glob("store.zarr/gram/ntk/c/*/*"))

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain\n{self.log()}"
            assert self.process is not None
            if self.process.poll() is not None:
                return
            time.sleep(0.005)

    def contents(self) -> dict[str, bytes]:
        """Every stored chunk."""
        root = self.out / "store.zarr"
        return {
            str(file.relative_to(root)): file.read_bytes()
            for file in root.rglob("*")
            if file.name.isdecimal() and file.is_file()
        }


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 12))
    labels = np.arange(900) % 3
    np.save(folder / "x.npy", centres[labels] + rng.standard_normal((900, 12)))
    np.save(folder / "y.npy", labels)
    (folder / "run.yaml").write_text(RUN.format(out=folder / "unused"))
    return folder / "run.yaml"


@pytest.fixture(scope="session")
def uninterrupted(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run stores that nothing happens to."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run = Run(folder, config, folder / "out")
    run.finish()
    return run.contents()


@pytest.fixture
def run(config: Path, tmp_path: Path):
    """A fresh run, whose processes do not outlive the test."""
    run = Run(tmp_path, config, tmp_path / "out")
    yield run
    if run.process is not None and run.process.poll() is None:
        run.kill()
