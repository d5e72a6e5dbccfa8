"""Workers that come by themselves: with the run's keys they take part, without them nobody does."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import acts
import psutil
import pytest

from pipeline.errors import InputError
from pipeline.plan.tasks import Record, Task
from pipeline.runtime import rendezvous, tls
from pipeline.runtime.cluster import RemoteSettings, open_executor
from pipeline.runtime.dask_executor import DaskExecutor
from pipeline.runtime.drive import drive
from pipeline.runtime.executor import Executor
from tests.stranger import answer

META = Path(__file__).parent


@pytest.fixture(scope="module")
def meeting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs") / "scheduler.json"


@pytest.fixture(scope="module")
def attendant(meeting: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, rendezvous.VARIABLE: str(meeting), "PYTHONPATH": str(META)}
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.runtime.attendant", "lo"], env=environment, stderr=subprocess.DEVNULL
    )
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def executor(meeting: Path, attendant: subprocess.Popen[bytes]) -> Iterator[Executor]:
    settings = RemoteSettings(meeting, workers=1, threads=1, ready_seconds=60, interface="lo")
    with open_executor(settings) as opened:
        yield opened
    assert not meeting.exists()
    assert not (meeting.parent / "keys").exists(), "no key survives its run"
    assert attendant.wait(30) == 0, "a worker leaves with its coordinator"


def test_tasks_run_and_lost_workers_come_back(executor: Executor, tmp_path: Path) -> None:
    executor.bind(acts.Act(tmp_path))
    tasks = [Task(f"t{n}", "square", (n,)) for n in range(5)]
    assert drive(tasks, executor, on_records=_ignore).done == 5
    (worker,) = executor.workers()
    psutil.Process(int(str(worker["pid"]))).kill()
    assert drive(tasks, executor, on_records=_ignore).done == 5
    assert executor.workers()[0]["pid"] != worker["pid"]


def test_keys_are_private(executor: Executor, meeting: Path) -> None:
    keys = meeting.parent / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    for file in (*keys.iterdir(), meeting):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert len(list(keys.iterdir())) == 3, "the authority's own key is nowhere"


def test_strangers_are_refused(executor: Executor, meeting: Path, tmp_path: Path) -> None:
    """Plain TCP, TLS without a certificate of ours and TLS with a foreign one."""
    address = json.loads(meeting.read_text())["address"]
    assert address.startswith("tls://127.0.0.1:")
    tls.issue(tmp_path / "foreign")
    assert answer(address, tls.dask_settings(meeting.parent / "keys")) == "OK"
    assert answer(address, tls.dask_settings(tmp_path / "foreign")) != "OK"
    assert answer(address.replace("tls://", "tcp://"), {}) != "OK"


def _ignore(records: list[Record]) -> None:
    pass


def test_listening_on_one_address_only(executor: Executor) -> None:
    listening = {
        c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }
    assert "0.0.0.0" not in listening
    assert "::" not in listening


def test_metrics_of_scheduler_and_workers(executor: Executor, tmp_path: Path) -> None:
    """In plain HTTP, and therefore on loopback, where the rest is encrypted."""
    executor.bind(acts.Act(tmp_path))
    drive([Task("t", "square", (1,))], executor, on_records=_ignore)  # so that there is a worker
    (worker,) = executor.workers()
    assert isinstance(executor, DaskExecutor) and executor.dashboard_link is not None
    ports = {int(executor.dashboard_link.removesuffix("/status").rpartition(":")[2])}
    ports |= {
        connection.laddr.port
        for connection in psutil.Process(int(str(worker["pid"]))).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and not str(worker["address"]).endswith(f":{connection.laddr.port}")
    }
    pages = []
    for port in ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
            pages.append(page.read())
    assert any(b"dask_scheduler_workers" in page for page in pages)
    assert any(b"dask_worker_tasks" in page for page in pages)


def test_interface_by_name() -> None:
    assert rendezvous.own_address("lo") == "127.0.0.1"
    with pytest.raises(InputError, match="network interface none0 is not there"):
        rendezvous.own_address("none0")


def test_versions_that_differ_are_named() -> None:
    ours = rendezvous.own_versions()
    assert rendezvous.differences(ours, ours) == []
    (line,) = rendezvous.differences(ours | {"jax": "0.1"}, ours)
    assert "jax" in line
    assert "0.1 on the coordinator" in line


def test_outside_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rendezvous.VARIABLE, raising=False)
    with pytest.raises(InputError, match="used by jobs only"):
        rendezvous.place()
