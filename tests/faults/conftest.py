"""Real runs in processes of their own, to be killed, stopped and damaged."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.faults import table

FULL = os.environ.get("NTK_FAULTS") == "full"
"""Whether the long form runs: more moments, a compiled kernel, all stages."""

ROOT = Path(__file__).parents[2]

SHORT_KERNEL = 'function: "tests.faults.kernel_of_tests:smooth"'
COMPILED_KERNEL = (
    "architecture: [{Dense: {out_dim: 8, W_std: 1.5, b_std: 0.05}}, Relu, {Dense: {out_dim: 1}}]"
)

RUN = """
data:
  train: {{x: x.npy, y: y.npy}}
  test: {{x: test.npy}}
  task: {task}
kernel: {{{kernel}}}
gram: {{tile: 16}}
solve: {{ridge: [1.0e-4, 1.0e-2], in_memory: false}}
out: unused
"""

PATIENCE = 30.0
"""No process may take longer to end after a fault."""

Contents = dict[str, bytes]
Chunk = tuple[str, tuple[int, ...]]


class Forge:
    """Starts runs as forks of a process that has imported everything (``tests.faults.forge``)."""

    def __init__(self) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forge"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment, cwd=ROOT,
        )  # fmt: skip

    def ask(self, **request: object) -> int | None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class Run:
    """One `ntk` command at a time on one run directory."""

    def __init__(self, forge: Forge, config: Path, out: Path):
        self.forge, self.config, self.out = forge, config, out
        self.log_file = out.parent / f"{out.name}.log"
        self.pid = 0
        self.code: int | None = None

    def start(
        self,
        command: str = "gram",
        *arguments: str,
        inject: Sequence[Sequence[object]] = (),
        tile_seconds: float = 0.0,
        **environment: str,
    ) -> None:
        """Start a command on the configuration; ``inject`` names functions of ``tests.faults.injections``."""
        words = [command, str(self.config), "--out", str(self.out), "--allow-code", *arguments]
        pid = self.forge.ask(
            do="start", arguments=words, folder=str(self.out.parent), log=str(self.log_file), inject=inject,
            environment={"TILE_SECONDS": str(tile_seconds), **environment},
        )  # fmt: skip
        assert pid is not None
        self.pid, self.code = pid, None

    def poll(self, seconds: float = 0.0) -> int | None:
        """The exit code, None while it runs."""
        if self.code is None:
            self.code = self.forge.ask(do="wait", pid=self.pid, seconds=seconds)
        return self.code

    def ends(self, code: int, seconds: float = 60.0) -> None:
        """It must end with this exit code."""
        found = self.poll(seconds)
        assert found is not None, f"still running after {seconds:g} s\n{self.log()}"
        assert found == code, self.log()

    def finish(self, command: str = "gram", *arguments: str, code: int = 0, **options) -> None:
        """Run to the end; the exit code must be this."""
        self.start(command, *arguments, **options)
        self.ends(code)

    def kill(self) -> None:
        """SIGKILL to the coordinator and everything it started."""
        for pid in [self.pid, *(child.pid for child in self.children())]:
            send(pid, signal.SIGKILL)
        self.ends(-signal.SIGKILL, 10)

    def children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[int]:
        """Worker processes, once there are two of them."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.poll() is None:
            found = [child.pid for child in self.children() if "worker" in " ".join(command_line(child))]
            if len(found) >= 2:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no two workers came up\n{self.log()}")

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")[-4000:]

    def tiles(self) -> int:
        """Tiles of the Gram matrix whose file is there."""
        return sum(file.name.isdecimal() for file in self.out.glob("store.zarr/gram/ntk/c/*/*"))

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain\n{self.log()}"
            if self.poll() is not None:
                return
            time.sleep(0.005)

    def contents(self) -> Contents:
        """Every stored chunk."""
        root = self.out / "store.zarr"
        return {
            str(file.relative_to(root)): file.read_bytes()
            for file in root.rglob("*")
            if file.name.isdecimal() and file.is_file()
        }

    def recorded(self) -> dict[Chunk, int]:
        """How often each tile was recorded as computed (one that was adopted was not computed again)."""
        counts: dict[Chunk, int] = {}
        for segment in self.out.glob("journal/*.jsonl"):
            for line in segment.read_bytes().splitlines():
                with contextlib.suppress(ValueError):  # half a line, of a process that died
                    entry = json.loads(line[9:])
                    if entry.get("array", "").startswith("gram/") and not entry.get("note", {}).get(
                        "adopted"
                    ):
                        chunk = entry["array"], tuple(entry["key"])
                        counts[chunk] = counts.get(chunk, 0) + 1
        return counts

    def said(self) -> str:
        """Its last error and hint."""
        found = re.findall(
            r"^error: .*?(?=^(?!hint:)\S|\Z)", self.log_file.read_text(errors="replace"), re.M | re.S
        )
        return found[-1] if found else ""


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    forge = Forge()
    yield forge
    forge.close()


def write_config(folder: Path, rows: int, kernel: str) -> Path:
    rng = np.random.default_rng(0)
    for name, count in (("x", rows), ("test", 20)):
        np.save(folder / f"{name}.npy", rng.standard_normal((count, 6)))
    np.save(folder / "y.npy", rng.standard_normal(rows))
    (folder / "run.yaml").write_text(RUN.format(kernel=kernel, task="regression"))
    (folder / "cluster.yaml").write_text(
        "local: {workers: 2, dashboard: false, memory: 1 GB}\nserial: {kind: serial, memory: 1 GB}\n"
    )
    return folder / "run.yaml"


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 tiles of a kernel that takes as long as it is told, for runs with workers."""
    return write_config(tmp_path_factory.mktemp("config"), 240, SHORT_KERNEL)


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 tiles of the same kernel, for runs in one process."""
    return write_config(tmp_path_factory.mktemp("small"), 96, SHORT_KERNEL)


def contents_of(
    forge: Forge, config: Path, folder: Path, command: str = "gram", cluster: str = "serial"
) -> Contents:
    run = Run(forge, config, folder / "out")
    run.finish(command, "--cluster", cluster)
    return run.contents()


@pytest.fixture(scope="session")
def uninterrupted(forge: Forge, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """The Gram matrix of a run that nothing happens to."""
    return contents_of(forge, config, tmp_path_factory.mktemp("uninterrupted"))


@pytest.fixture(scope="session")
def small_uninterrupted(
    forge: Forge, small_config: Path, tmp_path_factory: pytest.TempPathFactory
) -> Contents:
    return contents_of(forge, small_config, tmp_path_factory.mktemp("uninterrupted"))


@contextlib.contextmanager
def ended(run: Run) -> Iterator[Run]:
    """A run whose processes do not outlive the test."""
    try:
        yield run
    finally:
        if run.pid and run.poll() is None:
            run.kill()


@pytest.fixture
def run(forge: Forge, config: Path, tmp_path: Path) -> Iterator[Run]:
    """A fresh run, with workers unless its cluster is named."""
    with ended(Run(forge, config, tmp_path / "out")) as run:
        yield run


@pytest.fixture
def small_run(forge: Forge, small_config: Path, tmp_path: Path) -> Iterator[Run]:
    with ended(Run(forge, small_config, tmp_path / "out")) as run:
        yield run


@pytest.fixture
def compiled_run(forge: Forge, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Run]:
    """A fresh run of 120 tiles of a real architecture."""
    config = write_config(tmp_path_factory.mktemp("compiled"), 240, COMPILED_KERNEL)
    with ended(Run(forge, config, tmp_path / "out")) as run:
        yield run


@pytest.fixture
def row(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Adds a row to the table of injected failures."""
    return lambda fault, outcome: record_property(table.PROPERTY, [fault, outcome])


class Disk:
    """A file system in memory that can be made small, larger or read-only."""

    def __init__(self, path: Path):
        self.path = path

    def remount(self, options: str) -> None:
        self._mount("-o", f"remount,{options}", self.path)

    @contextlib.contextmanager
    def read_only(self, folder: Path) -> Iterator[None]:
        """A folder on it cannot be written, beside others that can."""
        self._mount("--bind", folder, folder)
        try:
            deadline = time.monotonic() + 10
            while True:  # refused while a file there is being written
                try:
                    self._mount("-o", "remount,bind,ro", folder)
                    break
                except subprocess.CalledProcessError:
                    assert time.monotonic() < deadline
            yield
        finally:
            subprocess.run(["umount", "-l", folder], check=True)

    def _mount(self, *arguments: object) -> None:
        subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True)
