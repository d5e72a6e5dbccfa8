"""The local cluster: on loopback only, quick to start and to end, nothing left behind, threads held to their share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from acts import Act
from driven import Driven

from pipeline.plan.tasks import Record, Task
from pipeline.runtime.cluster import LocalSettings, open_executor
from pipeline.runtime.dask_executor import DaskExecutor
from pipeline.runtime.dask_settings import CONFIG, LOOPBACK
from pipeline.runtime.environment import worker_environment
from pipeline.runtime.supervisor import WorkerProcess

HERE = Path(__file__).parent

PROGRAM = """
import json, sys, time
from pathlib import Path
from acts import Act
from pipeline.plan.tasks import Task
from pipeline.runtime.cluster import LocalSettings, open_executor
from pipeline.runtime.drive import drive
from pipeline.runtime.stop import StopFlag

directory, count, seconds = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
tasks = [Task("t", "sleep", (0.0,)), *(Task(f"t{n}", sys.argv[4], (seconds,), ("t",)) for n in range(count))]
began = time.monotonic()
with StopFlag() as stop, open_executor(LocalSettings(workers=2, dashboard=False)) as executor:
    executor.bind(Act(directory))
    first = []
    def on_records(records):
        if not first:
            first.append(time.monotonic() - began)
            print(*[worker["pid"] for worker in executor.workers()], flush=True)
    drive(tasks, executor, on_records=on_records, stop=stop)
    ending = time.monotonic()
print(first[0], time.monotonic() - ending, flush=True)
"""


def start_program(directory: Path, count: int, seconds: float, kind: str = "sleep") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory), str(count), str(seconds), kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent)])},
        start_new_session=True,
    )


def read_pids(program: subprocess.Popen[str]) -> list[int]:
    assert program.stdout is not None
    return [int(pid) for pid in program.stdout.readline().split()]


def gone(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_a_short_life_is_quick_and_quiet(tmp_path: Path) -> None:
    """0.9 s to the first result and 0.03 s for the end when nothing else runs; nothing on stderr."""
    program = start_program(tmp_path, 1, 0.0)
    out, err = program.communicate(timeout=60)
    first, end = map(float, out.splitlines()[-1].split())
    assert (program.returncode, err) == (0, "")
    assert first < 5
    assert end < 1


@pytest.mark.parametrize(("kind", "seconds"), [("sleep", 0.05), ("sleep", 60.0), ("clutches", 60)])
def test_workers_end_with_a_killed_coordinator(tmp_path: Path, kind: str, seconds: float) -> None:
    """SIGKILL to the coordinator alone, tasks running: no process of it is left a moment later."""
    program = start_program(tmp_path, 1000, seconds, kind)
    workers = read_pids(program)
    assert workers
    everything = [child.pid for child in psutil.Process(program.pid).children(recursive=True)]
    assert set(workers) <= set(everything)
    time.sleep(0.3)
    program.kill()
    _, err = program.communicate(timeout=10)
    assert gone(everything, 3)
    assert err == ""


def test_workers_leave_a_terminal_s_interrupt_to_the_coordinator(tmp_path: Path) -> None:
    """SIGINT goes to the whole process group: what runs is finished and recorded, the program says why it ended."""
    program = start_program(tmp_path, 1000, 0.2)
    workers = read_pids(program)
    began = time.monotonic()
    os.killpg(program.pid, signal.SIGINT)
    _, err = program.communicate(timeout=10)
    assert time.monotonic() - began < 3
    assert "Interrupted: stopped by SIGINT" in err
    assert "worker" not in err.replace("worker_", "")
    assert gone(workers, 1)


def test_everything_listens_on_loopback(driven: Driven, tmp_path: Path) -> None:
    with open_executor(LocalSettings(workers=2, dashboard=True)) as executor:
        assert isinstance(executor, DaskExecutor)
        executor.bind(Act(tmp_path))
        driven.run([Task(f"t{n}", "sleep", (0.1,)) for n in range(20)], executor)
        me = psutil.Process()
        listening = [
            connection.laddr
            for process in [me, *me.children(recursive=True)]
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 4
        assert {address.ip for address in listening} == {"127.0.0.1"}
        link = executor.dashboard_link
        assert link is not None
        assert link.startswith("http://127.0.0.1:")
        assert int(link.split(":")[2].removesuffix("/status")) in {address.port for address in listening}


class Threads:
    """Counts the threads of XLA's and OpenBLAS' pools in a worker."""

    def __call__(self, task: Task) -> list[Record]:
        import jax.numpy as jnp
        import numpy as np

        jnp.ones((64, 64)) @ jnp.ones((64, 64))
        np.ones((64, 64)) @ np.ones((64, 64))
        names = [comm.read_text() for comm in Path("/proc/self/task").glob("*/comm")]  # none but on Linux
        note = {
            "eigen": sum(name.startswith("tf_XLAEigen") for name in names) if names else None,
            "blas": os.environ["OPENBLAS_NUM_THREADS"],
            "cache": os.environ["JAX_COMPILATION_CACHE_DIR"],
        }
        return [Record("a", (0,), "d", (1,), "float64", 0.0, 8, "", 0.0, task.key, note)]


@pytest.mark.parametrize("threads", [1, 3])
def test_compiled_code_keeps_to_its_threads(
    threads: int,
    driven: Driven,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The size of XLA's pool is the one asked for, and what was compiled is kept for others, without a word."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    for number in range(2):  # the second one finds what the first one compiled
        with open_executor(LocalSettings(workers=1, threads=threads, dashboard=False)) as executor:
            executor.bind(Threads())
            driven.run([Task(f"t{number}", "any")], executor)
    for record in driven.records:
        assert record.note["eigen"] in (threads, None)
        assert record.note["blas"] == str(threads)
        assert record.note["cache"] == str(tmp_path / "ntk-pipeline" / "jax")
    assert any((tmp_path / "ntk-pipeline" / "jax").iterdir())
    assert capfd.readouterr().err == ""


def test_settings_of_the_caller_are_put_back(driven: Driven) -> None:
    import logging

    from dask import config

    before = config.get("distributed.scheduler.work-stealing"), logging.getLogger("distributed").level
    with open_executor(LocalSettings(workers=1, dashboard=False)):
        assert config.get("distributed.scheduler.work-stealing") is False
    assert (
        config.get("distributed.scheduler.work-stealing"),
        logging.getLogger("distributed").level,
    ) == before


def test_environment_reaches_the_workers(driven: Driven, tmp_path: Path) -> None:
    with open_executor(LocalSettings(workers=1, dashboard=False), {"NTK_COLOUR": "green"}) as executor:
        executor.bind(Act(tmp_path))
        driven.run([Task("t", "environment", ("NTK_COLOUR",))], executor)
    assert driven.values == {"t": "green"}


def test_each_gpu_has_a_worker_of_its_own(driven: Driven, tmp_path: Path) -> None:
    """What its process sees before JAX starts, also one that was started again; and no task goes elsewhere."""
    wanted = (
        "CUDA_VISIBLE_DEVICES",
        "XLA_PYTHON_CLIENT_PREALLOCATE",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "JAX_COMPILATION_CACHE_DIR",
    )
    settings = LocalSettings(workers=2, dashboard=False, gpus=("0", "GPU-bb"), gpu_shares=(0.75, 0.5))
    with open_executor(settings) as executor:
        executor.bind(Act(tmp_path))
        driven.run([Task("k", "kills_once", ("marker",))], executor)
        while len(executor.workers()) < 2:
            time.sleep(0.02)
        tasks = [Task(f"t{n}", "environments", wanted) for n in range(20)]
        driven.run(tasks, executor)
        seen = {tuple(driven.values[task.key]) for task in tasks}
        assert {slot[:3] for slot in seen} == {("0", "true", "0.750"), ("GPU-bb", "true", "0.500")}
        assert all(slot[3] for slot in seen)


def test_a_task_that_needs_a_gpu_waits_for_a_worker_that_has_one(driven: Driven, tmp_path: Path) -> None:
    """A worker without the resource stands beside and is given nothing."""
    settings = LocalSettings(workers=1, dashboard=False, gpus=("0",), gpu_shares=(0.75,))
    with open_executor(settings) as executor:
        assert isinstance(executor, DaskExecutor)
        executor.bind(Act(tmp_path))
        scheduler = executor._crew._scheduler  # type: ignore[attr-defined]
        stranger = WorkerProcess(worker_environment(1))
        try:
            stranger.order({
                "config": CONFIG,
                "options": {
                    "scheduler_ip": scheduler.address, "name": "stranger", "nthreads": 2, "host": LOOPBACK,
                    "dashboard": False, "dashboard_address": f"{LOOPBACK}:0", "memory_limit": 0,
                },
            })  # fmt: skip
            while len(scheduler.workers) < 2:
                time.sleep(0.02)
            tasks = [Task(f"s{n}", "environment", ("CUDA_VISIBLE_DEVICES",)) for n in range(50)]
            driven.run(tasks, executor)
        finally:
            stranger.close()
            stranger.wait()
        assert {driven.values[task.key] for task in tasks} == {"0"}
