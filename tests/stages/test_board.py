"""What a run says of itself while it runs: counted from its events, read by whoever asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.app import app
from pipeline.plan.tasks import Record
from pipeline.runtime.events import Event, Retried, Started, TaskDone, WorkersChanged
from pipeline.stages.board import SHOWN_WORKERS, Board, worker_lines
from pipeline.stages.session import Progress
from pipeline.store.lease import Lease
from pipeline.store.live import Sign, at_work
from tests.stages.conftest import Runner


def done(worker: str, count: int, nbytes: int = 100) -> TaskDone:
    records = tuple(
        Record("gram/ntk", (0, j), "", (8, 8), "float64", 0.1, nbytes, worker, 0.0) for j in range(count)
    )
    return TaskDone("gram/0.0", records, 0.1, worker, 1, 9)


def told(board: Board, *events: Event) -> Board:
    chunks = 0
    for event in events:
        chunks += len(event.records) if isinstance(event, TaskDone) else 0
        board(Progress("gram", 9, chunks, event))
    return board


PRESENT = (
    {"label": "a:1", "task": "gram/0.3", "silent": 0.2},
    {"label": "b:2", "task": None, "silent": 75.0},
)


def test_counts_are_those_of_the_events() -> None:
    board = told(
        Board(), Started(9, 0), WorkersChanged(PRESENT), done("a:1", 2), done("b:2", 1), done("a:1", 1),
        Retried("gram/0.3", "lost", 1),
    )  # fmt: skip
    document = board.document()
    assert (document["done"], document["total"], document["retries"]) == (4, 9, 1)
    assert [worker["chunks"] for worker in document["workers"]] == [3, 1]
    assert board.bytes == 400
    assert board.left == pytest.approx(board.elapsed * 5 / 4, rel=0.1)
    assert worker_lines(document) == [
        "a:1       3 done  gram/0.3",
        "b:2       1 done  waits           silent for 1 min 15 s",
    ]
    told(board, Started(4, 0))
    assert board.document()["workers"][0]["task"] is None, "a new set of tasks begins"
    assert board.left is None


def test_many_workers_are_counted() -> None:
    board = told(Board(), Started(9, 0), WorkersChanged(PRESENT * SHOWN_WORKERS))
    assert (
        worker_lines(board.document())[-1] == f"and {SHOWN_WORKERS} more, {SHOWN_WORKERS // 2} of them busy"
    )


def test_status_shows_who_is_at_work(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.board.SAY_SECONDS", 0.0)
    runner.run("gram")
    directory = runner.folder / "run"
    assert at_work(directory) == []
    with Lease(directory):
        assert [live.lease for live in at_work(directory)] == ["run"]
        sign = Sign(directory, "run")
        told(
            Board(sign, dashboard="http://127.0.0.1:1/status"),
            Started(9, 0),
            WorkersChanged(PRESENT),
            done("a:1", 2),
        )
        text = CliRunner().invoke(app, ["status", str(directory)]).stdout
        for part in (
            "running: process",
            "gram: 2/9",
            "a:1       2 done  gram/0.3",
            "http://127.0.0.1:1/status",
        ):
            assert part in text
        (running,) = json.loads(CliRunner().invoke(app, ["status", str(directory), "--json"]).stdout)[
            "running"
        ]
        assert running["workers"][1]["task"] is None
        sign.remove()
        assert at_work(directory)[0].said == {}
    watched = CliRunner().invoke(app, ["status", str(directory), "--watch"])
    assert watched.exit_code == 0 and "15/15 tiles" in watched.stdout


def test_what_a_killed_process_said_is_not_believed(tmp_path: Path) -> None:
    Sign(tmp_path, "run").write({"label": "lost"})
    (tmp_path / "leases").mkdir()
    Sign(tmp_path, "run").write({"label": "old"})
    file = tmp_path / "leases/run.live"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": 1}))
    with Lease(tmp_path):
        assert at_work(tmp_path)[0].said == {}
