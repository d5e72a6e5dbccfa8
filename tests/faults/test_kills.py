"""Killed at any moment and run again, a run ends with the arrays of an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.faults import table
from tests.faults.conftest import FULL, Run, send

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200 if FULL else 400)]

KILLS = 20 if FULL else 4


def recorded(out: Path) -> dict[tuple[str, tuple[int, ...]], int]:
    """How often each tile of the Gram matrix was recorded as computed (an adopted one was not computed again)."""
    counts: dict[tuple[str, tuple[int, ...]], int] = {}
    for segment in out.glob("journal/*.jsonl"):
        for line in segment.read_text().splitlines():
            entry = json.loads(line[9:])
            if entry.get("array", "").startswith("gram/") and not entry.get("note", {}).get("adopted"):
                chunk = entry["array"], tuple(entry["key"])
                counts[chunk] = counts.get(chunk, 0) + 1
    return counts


def test_everything_killed_at_random_moments(run: Run, uninterrupted: dict[str, bytes]) -> None:
    rng = random.Random(1)
    kills = 0
    for _ in range(KILLS):
        process = run.start()
        # From the first import to the last stage: a run here takes about ten seconds.
        time.sleep(rng.uniform(0.3, 9.0))
        if process.poll() is None:
            run.kill()
            kills += 1
        else:
            assert process.returncode == 0, run.log()
    run.finish()
    assert run.contents() == uninterrupted
    table.row(f"kill -9 of everything, {kills} random moments", "identical")


def test_killed_during_the_tiles(run: Run, uninterrupted: dict[str, bytes]) -> None:
    """No recorded tile is computed again, and at most those in flight are computed twice."""
    before: dict[tuple[str, tuple[int, ...]], int] = {}
    for goal in (3, 20, 50):
        run.start()
        run.wait_for(lambda goal=goal: run.tiles() >= goal)
        run.kill()
        before = recorded(run.out)
    run.finish()
    after = recorded(run.out)
    assert all(after[chunk] == count for chunk, count in before.items()), "a recorded tile was computed again"
    assert run.contents() == uninterrupted
    table.row("kill -9 of everything, after 3, 20 and 50 tiles", "identical, no recorded tile computed again")


@pytest.mark.parametrize("moment", range(20 if FULL else 2))
def test_worker_killed(run: Run, uninterrupted: dict[str, bytes], moment: int) -> None:
    process = run.start()
    victims = run.workers()
    run.wait_for(lambda: run.tiles() >= 1 + 5 * moment)
    send(victims[moment % 2], signal.SIGKILL)
    assert process.wait(timeout=120) == 0, run.log()
    assert run.contents() == uninterrupted
    table.row(f"kill -9 of a worker ({moment})", "identical, the same run went on")


def test_coordinator_killed_leaves_no_worker(run: Run, uninterrupted: dict[str, bytes]) -> None:
    process = run.start()
    workers = run.workers()
    run.wait_for(lambda: run.tiles() >= 5)
    send(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlived their coordinator"
        time.sleep(0.05)
    run.finish()
    assert run.contents() == uninterrupted
    table.row("kill -9 of the coordinator and scheduler", "workers end, rerun identical")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_stopped_cleanly(
    run: Run, uninterrupted: dict[str, bytes], number: signal.Signals, code: int
) -> None:
    process = run.start()
    run.workers()
    run.wait_for(lambda: run.tiles() >= 5)
    began = time.monotonic()
    send(process.pid, number)
    assert process.wait(timeout=10) == code, run.log()
    took = time.monotonic() - began
    tiles = recorded(run.out)
    run.finish()
    assert all(recorded(run.out)[chunk] == 1 for chunk in tiles)
    assert run.contents() == uninterrupted
    table.row(f"{number.name} during the tiles", f"exit {code} after {took:.1f} s, rerun identical")


def test_worker_frozen(run: Run, uninterrupted: dict[str, bytes]) -> None:
    process = run.start()
    victims = run.workers()
    run.wait_for(lambda: run.tiles() >= 3)
    send(victims[0], signal.SIGSTOP)
    time.sleep(3)
    send(victims[0], signal.SIGCONT)
    assert process.wait(timeout=120) == 0, run.log()
    assert run.contents() == uninterrupted
    table.row("SIGSTOP of a worker for 3 s", "identical")


def test_two_runs_on_one_directory(run: Run, uninterrupted: dict[str, bytes]) -> None:
    process = run.start()
    run.workers()
    run.wait_for(lambda: run.tiles() >= 1)
    second = Run(run.folder, run.config, run.out)
    second.finish(code=2)
    assert "lease" in run.log() or "another" in run.log()
    assert process.wait(timeout=120) == 0, run.log()
    assert run.contents() == uninterrupted
    table.row("two runs on one directory", "the second refused (exit 2), the first identical")
