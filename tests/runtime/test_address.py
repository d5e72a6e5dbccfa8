"""A scheduler that somebody else keeps: used with its certificates, refused in plain TCP from afar."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import acts
import pytest

from pipeline.config.cluster import AddressCluster, AnyCluster, Clusters
from pipeline.config.load import validate
from pipeline.errors import InputError, TasksFailed
from pipeline.plan.resources import one_worker, resolve
from pipeline.plan.tasks import Record, Task
from pipeline.runtime import rendezvous, tls
from pipeline.runtime.address import is_loopback, settings
from pipeline.runtime.cluster import AddressSettings, open_executor
from pipeline.runtime.drive import drive

META = Path(__file__).parent
SERVER = """
import asyncio, json, sys
from dask import config
from distributed import Scheduler, Worker
async def serve():
    async with Scheduler(host="127.0.0.1", protocol="tls", port=0, dashboard=False) as scheduler:
        async with Worker(scheduler.address, host="127.0.0.1", nthreads=2, dashboard=False) as worker:
            print(scheduler.address, flush=True)
            await asyncio.to_thread(sys.stdin.read)
with config.set(json.loads(sys.argv[1])):
    asyncio.run(serve())
"""
ENTRY = {"kind": "address", "address": "tls://10.0.0.1:8786", "workers": 1, "memory": "1 GB"}
FILES = {"ca": "/k/ca.pem", "certificate": "/k/certificate.pem", "key": "/k/key.pem"}


def cluster(**changes: object) -> AnyCluster:
    return validate(Clusters, {"x": ENTRY | changes}, "cluster.yaml").root["x"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AddressCluster]:
    keys = tmp_path_factory.mktemp("keys")
    tls.issue(keys)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps(tls.dask_settings(keys))], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(META)}, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    files = {name: str(keys / f"{name}.pem") for name in FILES}
    found = cluster(address=process.stdout.readline().strip(), **files)
    assert isinstance(found, AddressCluster)
    yield found
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_its_workers_are_used(theirs: AddressCluster, tmp_path: Path) -> None:
    records: list[Record] = []
    with open_executor(AddressSettings(theirs)) as executor:
        executor.bind(acts.Act(tmp_path))
        drive([Task(f"t{n}", "square", (n,)) for n in range(5)], executor, on_records=records.extend)
        assert len(executor.workers()) == 1
    assert sorted(record.note["value"] for record in records) == [0, 1, 4, 9, 16]


def test_a_report_on_their_work(theirs: AddressCluster, tmp_path: Path) -> None:
    """Of this run's tasks, by workers that stay when it ends."""
    pages: list[str] = []
    with open_executor(AddressSettings(theirs)) as executor:
        executor.report_to(pages.append)
        executor.bind(acts.Act(tmp_path))
        drive([Task("t", "square", (3,))], executor, on_records=lambda records: None)
    (page,) = pages
    assert "<html" in page
    assert "square" in page


def test_workers_of_other_versions_get_nothing(
    theirs: AddressCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runtime import address

    monkeypatch.setattr(
        address, "differences", lambda theirs, ours: rendezvous.differences(theirs, ours | {"jax": "99.0"})
    )
    with open_executor(AddressSettings(theirs)) as executor:
        executor.bind(acts.Act(tmp_path))
        with pytest.raises(TasksFailed, match=r"does not fit: jax is 99.0 here and \S+ there"):
            drive([Task("t", "square", (1,))], executor, on_records=lambda records: None)


def test_foreign_certificates_do_not_get_us_in(theirs: AddressCluster, tmp_path: Path) -> None:
    tls.issue(tmp_path)
    foreign = theirs.model_copy(update={name: str(tmp_path / f"{name}.pem") for name in FILES})
    with (
        pytest.raises(InputError, match="no Dask scheduler lets us in"),
        open_executor(AddressSettings(foreign)),
    ):
        pass


def test_plain_tcp_stays_on_this_machine() -> None:
    far, near = cluster(address="tcp://10.0.0.1:8786"), cluster(address="tcp://127.0.0.1:8786")
    assert isinstance(far, AddressCluster)
    assert isinstance(near, AddressCluster)
    with pytest.raises(InputError, match=r"tcp://10\.0\.0\.1:8786 is plain TCP: .*\n.*--insecure"):
        settings(far, insecure=False)
    assert settings(far, insecure=True) == settings(near, insecure=False) == {}
    assert is_loopback("tcp://localhost:1")
    assert not is_loopback("tcp://example.org:1")


def test_entries() -> None:
    with pytest.raises(InputError, match=r"x: a tls:// address needs ca, certificate, key"):
        cluster()
    with pytest.raises(InputError, match=r"x.address: must be tls://HOST:PORT"):
        cluster(address="10.0.0.1", **FILES)
    found = cluster(**FILES)
    assert (resolve(found).kind, resolve(found).workers, resolve(found).entry) == ("address", 1, found)
    assert one_worker(found).memory == "1000000000 B"
