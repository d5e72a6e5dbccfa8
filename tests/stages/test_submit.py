"""Attempts at a run: followed by another while they make progress, and not when they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.errors import InputError, Stopped, TasksFailed
from pipeline.runtime import rendezvous, slurm
from pipeline.stages import submit
from pipeline.store.layout import RunLayout

RUN = """
data: {train: {source: digits}}
kernel: {architecture: [{Dense: {out_dim: 8}}, Relu, {Dense: {out_dim: 1}}]}
"""


def test_printed_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(rendezvous.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "cluster.yaml").write_text("far: {kind: slurm, memory: 1 GB, nodes: 2}\n")
    shown = CliRunner().invoke(
        app, ["submit", "run.yaml", "--cluster", "far", "--print", "--array", "3", "--json"]
    )
    first, second = json.loads(shown.stdout)["scripts"]
    assert "--array=1-3" in first
    assert f"--out {tmp_path}/runs" in second
    assert {file.name for file in tmp_path.iterdir()} == {"run.yaml", "cluster.yaml"}
    for arguments, message in (
        (["--cluster", "local"], "of kind local: there is nothing to submit to"),
        (["--status", "--cancel"], "give one of them"),
        (["--status"], "nothing was submitted from here"),
    ):
        refused = CliRunner().invoke(app, ["submit", "run.yaml", *arguments])
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
    started = CliRunner().invoke(app, ["run", "run.yaml", "--cluster", "far", "--set", "gram.tile=512"])
    assert started.exit_code == 2
    assert "used by jobs only" in started.stderr


class Queue:
    """What Slurm would say and do: the state of our one job, and whether it was requeued."""

    def __init__(self) -> None:
        self.state = "RUNNING"
        self.requeued = 0

    def requeue(self, job: str) -> None:
        self.requeued += 1


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    monkeypatch.setattr(slurm, "state", lambda job: queue.state)
    monkeypatch.setattr(slurm, "requeue", queue.requeue)
    return queue


def attempt(
    monkeypatch: pytest.MonkeyPatch, directory: Path, restart: int, *, before: int, after: int
) -> None:
    """One that was stopped in time."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    monkeypatch.setattr(submit, "_progress", lambda directory: before)
    submit.begin_attempt(directory)
    monkeypatch.setattr(submit, "_progress", lambda directory: after)
    submit.end_attempt(directory, Stopped.exit_code)


def test_requeued_while_there_is_progress(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for restart, (before, after) in enumerate([(0, 0), (0, 5), (5, 5), (5, 9)]):
        with pytest.raises(Stopped):
            attempt(monkeypatch, tmp_path, restart, before=before, after=after)
    assert queue.requeued == 4
    monkeypatch.setattr(submit, "_progress", lambda directory: 12)
    submit.begin_attempt(tmp_path)
    submit.end_attempt(tmp_path, 0)
    assert queue.requeued == 4, "what is done is not begun again"
    events = [json.loads(line)["event"] for line in RunLayout(tmp_path).job_history.read_text().splitlines()]
    assert events == ["began", "ended", "requeued"] * 4 + ["began", "ended"]


def test_two_idle_attempts_are_enough(tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stopped):
        attempt(monkeypatch, tmp_path, 0, before=5, after=5)
    with pytest.raises(TasksFailed, match="2 attempts in a row recorded nothing new"):
        attempt(monkeypatch, tmp_path, 1, before=5, after=5)
    assert queue.requeued == 1


def test_killed_attempts_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that Slurm requeued itself and that had no time to say anything."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(submit, "_progress", lambda directory: 3)
    submit.begin_attempt(tmp_path)
    submit.begin_attempt(tmp_path)
    with pytest.raises(TasksFailed, match="not begun again"):
        submit.begin_attempt(tmp_path)


@pytest.mark.parametrize("state", ["CANCELLED", "PENDING", "COMPLETING"])
def test_slurm_knows_better(
    tmp_path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """Cancelled by a person, or requeued already: nothing is left for us to do."""
    queue.state = state
    with pytest.raises(Stopped):
        attempt(monkeypatch, tmp_path, 0, before=0, after=1)
    assert not queue.requeued


def test_outside_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(InputError, match="batch script"):
        submit.begin_attempt(tmp_path)
