"""Workers join and leave in the middle of the Gram stage and of conjugate gradients: the same bytes as without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ntk.linalg import conjugate_gradients
from pipeline.config.cluster import SshCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.runtime import rendezvous
from pipeline.runtime.attendant import ATTACHED
from pipeline.runtime.events import TaskDone
from pipeline.stages.opening import open_prepared
from pipeline.stages.order import run_stages
from pipeline.stages.prepare import prepare
from pipeline.stages.session import Progress, Session

SLOW = """
import time
import numpy as np

def kernel(x1, x2):
    time.sleep(0.04)
    return np.exp(-0.1 * np.sum((x1[:, None] - (x1 if x2 is None else x2)[None]) ** 2, -1))
"""
FIELDS = {
    "kernel": {"function": "slow_kernel:kernel"},
    "gram": {"tile": 16},
    "solve": {"method": "cg", "ridge": [1e-2], "tolerance": 1e-7, "rank": 5},
    "spectrum": {"method": "none"},
}


class Guest:
    """A worker that joins and leaves."""

    def __init__(self, session: Session):
        self.session = session
        self.process: subprocess.Popen[bytes] | None = None
        self.visits = 0

    def workers(self) -> int:
        return len(self.session.executor.workers())

    def join(self) -> None:
        if self.process is not None:
            return
        (meeting,) = (self.session.directory / "jobs").glob("scheduler-*.json")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.runtime.attendant", ATTACHED, "lo"], stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env={**os.environ, rendezvous.VARIABLE: str(meeting)},
        )  # fmt: skip
        self._until(lambda: self.workers() == 2)
        self.visits += 1

    def leave(self) -> None:
        if self.process is None:
            return
        assert self.process.stdin is not None
        self.process.kill()  # its worker goes with it, whatever it is doing
        self.process.wait()
        self.process.stdin.close()
        self.process = None
        self._until(lambda: self.workers() == 1)

    def _until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not true():
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.fixture
def where(tmp_path: Path) -> SshCluster:
    """One worker, fetched by a shell that drops the host."""
    (tmp_path / "shell").write_text('#!/bin/bash\nshift\nexec "$@"\n')
    (tmp_path / "shell").chmod(0o755)
    return SshCluster(
        kind="ssh", hosts=("near",), memory="1 GB", interface="lo", ssh_command=(str(tmp_path / "shell"),)
    )


def visits_during_gram(guest: Guest) -> Iterator[None]:
    """One step for each task that is done."""
    yield
    guest.join()
    yield
    yield
    guest.leave()


def test_joining_and_leaving_change_nothing(runner, contents, where, monkeypatch):
    (runner.folder / "slow_kernel.py").write_text(SLOW)
    for stage in ("gram", "solve"):
        runner.run(stage, **FIELDS, out=str(runner.folder / "alone"))
    config = validate(RunConfig, runner.document(**FIELDS, out=str(runner.folder / "elastic")), "test")
    ready = prepare(config, where, allow_code=True, folder=runner.folder)
    opened = open_prepared(ready)
    step, steps = conjugate_gradients.step, iter(range(1000))
    with opened as session:
        guest = Guest(session)
        script = visits_during_gram(guest)

        def listen(progress: Progress) -> None:
            if progress.label == "gram" and isinstance(progress.event, TaskDone):
                next(script, None)

        def stepping(*arguments):
            {2: guest.join, 5: guest.leave, 7: guest.join}.get(next(steps), lambda: None)()
            return step(*arguments)

        session.listener = listen
        monkeypatch.setattr(conjugate_gradients, "step", stepping)
        for stage in ("gram", "solve"):
            run_stages(session, ready.plan, only=stage)
        assert guest.visits >= 2
        assert next(steps) > 7
        if guest.process is not None:
            guest.leave()
    alone, elastic = (contents(runner.folder / name) for name in ("alone", "elastic"))
    assert alone.keys() == elastic.keys()
    assert all(alone[name] == elastic[name] for name in alone)
