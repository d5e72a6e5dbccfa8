"""Workers fetched by a remote shell, which here is this machine's: what it is sent, and what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import acts
import pytest

from pipeline.config.cluster import Clusters, SshCluster
from pipeline.config.load import validate
from pipeline.errors import InputError, TasksFailed
from pipeline.plan.resources import resolve
from pipeline.plan.tasks import Task
from pipeline.runtime import ssh
from pipeline.runtime.cluster import SshSettings, open_executor
from pipeline.runtime.drive import drive

SMALL = {"kind": "ssh", "hosts": ["near"], "memory": "1 GB"}
FULL = SMALL | {
    "hosts": ["a", "root@b"], "gpus_per_host": 2, "gpu_memory": "500 MB", "interface": "ib0",
    "scratch": "/local/it's $HOME", "setup": ["module load cuda"],
}  # fmt: skip


def cluster(entry: dict[str, object]) -> SshCluster:
    found = validate(Clusters, {"x": entry}, "cluster.yaml").root["x"]
    assert isinstance(found, SshCluster)
    return found


@pytest.fixture
def here(tmp_path: Path) -> SshCluster:
    """A "remote" shell that drops the host and runs the rest here; a setup line that reads its input; one worker."""
    (tmp_path / "shell").write_text('#!/bin/bash\nshift\nexec "$@"\n')
    (tmp_path / "shell").chmod(0o755)
    setup = ["read -r line || true", f"export PYTHONPATH={Path(__file__).parent}"]
    return cluster(
        SMALL
        | {"ssh_command": [str(tmp_path / "shell")], "interface": "lo", "setup": setup, "ready_seconds": 30}
    )


def test_tasks_run_there(here: SshCluster, tmp_path: Path) -> None:
    meeting = tmp_path / "jobs" / "scheduler.json"
    with open_executor(SshSettings(here, meeting)) as executor:
        executor.bind(acts.Act(tmp_path))
        executor.log_to(tmp_path / "logs")
        tasks = [Task(f"t{n}", "square", (n,)) for n in range(5)]
        assert drive(tasks, executor, on_records=lambda records: None).done == 5
        assert '"tls://127.0.0.1:' in meeting.read_text()
    (log,) = (tmp_path / "logs").iterdir()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["task"] for line in lines) == [task.key for task in tasks]
    assert lines[0]["seconds"] >= 0
    assert not meeting.exists()
    assert not (tmp_path / "jobs/keys").exists()


def test_an_installation_that_differs_is_refused_and_named(
    here: SshCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.runtime import remote

    monkeypatch.setattr(remote, "own_versions", lambda: {"python": "2.7"})
    with open_executor(SshSettings(here, tmp_path / "jobs" / "scheduler.json")) as executor:
        executor.bind(acts.Act(tmp_path))
        with pytest.raises(TasksFailed, match=r"near-0: .*python is 3\.\d+ here and 2\.7 on the coordinator"):
            drive([Task("t", "square", (1,))], executor, on_records=lambda records: None)


def test_what_bash_is_sent() -> None:
    where = cluster(FULL)
    places = ssh.posts(where)
    assert [post.name for post in places] == ["a-0", "root@b-0", "a-1", "root@b-1"]
    script = ssh.worker_script(places[2], where, Path("/run of/it's"), sys.executable)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    if checker := shutil.which("shellcheck"):
        subprocess.run(
            [checker, "--shell=bash", "--severity=warning", "-"], input=script, text=True, check=True
        )
    exports = [line for line in script.splitlines() if line.startswith("export")]
    values = subprocess.run(
        ["bash", "-c", "\n".join([*exports, 'echo "$NTK_RENDEZVOUS|$TMPDIR|$NTK_SCRATCH|$CUDA_VISIBLE_DEVICES"'])],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert values.strip() == "/run of/it's|/local/it's $HOME|/local/it's $HOME|1"
    assert (resolve(where).workers, resolve(where).memory) == (4, 500_000_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hosts": []}, "x.hosts: "),
        ({"hosts": ["-oProxyCommand=rm"]}, "x.hosts.0: must be the name of a host"),
        ({"ssh_command": []}, "x.ssh_command: "),
        ({"nodes": 2}, "x.nodes: unknown key"),
    ],
)
def test_bad_entries_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster(SMALL | change)
