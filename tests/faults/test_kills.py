"""Killed, stopped or frozen at any moment and run again, a run ends with the arrays of an uninterrupted one, bit for
bit."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable

import pytest

from tests.faults.conftest import FULL, PATIENCE, Contents, Forge, Run, alive, contents_of, send

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200 if FULL else 200)]

Row = Callable[[str, str], None]

TILE_SECONDS = 0.03
"""Makes the gram stage of two workers last for more than a second."""


def test_everything_killed_at_random_moments(
    forge: Forge, compiled_run: Run, small_run: Run, tmp_path_factory: pytest.TempPathFactory, row: Row
) -> None:
    """All stages: from the first work to the report."""
    cluster, victim = ("local", compiled_run) if FULL else ("serial", small_run)
    whole = contents_of(forge, victim.config, tmp_path_factory.mktemp("whole"), "run", cluster)
    rng = random.Random(1)
    kills, wanted = 0, 20 if FULL else 2
    while kills < wanted:
        victim.start("run", "--cluster", cluster)
        time.sleep(rng.uniform(0.1, 8.0 if FULL else 1.0))
        if victim.poll() is None:
            victim.kill()
            kills += 1
        else:  # it came to its end between two deaths
            assert victim.contents() == whole
            shutil.rmtree(victim.out)
    victim.finish("run", "--cluster", cluster)
    assert victim.contents() == whole
    row(f"kill -9 of everything, {kills} random moments of all stages", "rerun identical")


def test_everything_killed_during_the_tiles(run: Run, uninterrupted: Contents, row: Row) -> None:
    """No recorded tile is computed again."""
    goals = (3, 20, 50, 80, 110) if FULL else (20,)
    for goal in goals:
        run.start(tile_seconds=TILE_SECONDS)
        run.wait_for(lambda goal=goal: run.tiles() >= goal)
        run.kill()
    before = run.recorded()
    run.finish()
    after = run.recorded()
    assert all(after[chunk] == count for chunk, count in before.items()), "a recorded tile was computed again"
    assert run.contents() == uninterrupted
    row(
        f"kill -9 of everything during the tiles, after {', '.join(map(str, goals))}",
        "rerun identical, no recorded tile again",
    )


def test_workers_killed(run: Run, uninterrupted: Contents, row: Row) -> None:
    """At random moments: each time the task is lost and tried again, and the same run goes on. The twenty kills of the
    long form are spread over several runs: in one, a task that every few seconds loses its worker is given up."""
    rng = random.Random(2)
    kills, of_a_run = (20, 5) if FULL else (2, 2)
    for _ in range(kills // of_a_run):
        run.start(tile_seconds=TILE_SECONDS * (10 if FULL else 1))
        for _ in range(of_a_run):
            victims = run.workers()
            time.sleep(rng.uniform(0.0, 1.0 if FULL else 0.3))
            send(rng.choice(victims), signal.SIGKILL)
        assert run.poll() is None, f"it ended before the last kill\n{run.log()}"
        run.ends(0)
        assert run.contents() == uninterrupted
        shutil.rmtree(run.out)
    row(f"kill -9 of a worker, {kills} random moments", "identical, the same run went on")


def test_coordinator_killed_leaves_no_worker(run: Run, uninterrupted: Contents, row: Row) -> None:
    run.start(tile_seconds=TILE_SECONDS)
    workers = run.workers()
    run.wait_for(lambda: run.tiles() >= 5)
    send(run.pid, signal.SIGKILL)
    run.ends(-signal.SIGKILL, 5)
    deadline = time.monotonic() + 15
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlived their coordinator"
        time.sleep(0.05)
    run.finish("gram", "--cluster", "serial")
    assert run.contents() == uninterrupted
    row("kill -9 of the coordinator with its scheduler", "workers end, rerun identical")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_stopped_cleanly(
    run: Run, uninterrupted: Contents, row: Row, number: signal.Signals, code: int
) -> None:
    run.start(tile_seconds=TILE_SECONDS)
    run.workers()
    run.wait_for(lambda: run.tiles() >= 5)
    began = time.monotonic()
    send(run.pid, number)
    run.ends(code, 10)
    took = time.monotonic() - began
    assert "hint: the same command again continues" in run.said()
    tiles = run.recorded()
    run.finish("gram", "--cluster", "serial")
    assert all(run.recorded()[chunk] == 1 for chunk in tiles)
    assert run.contents() == uninterrupted
    row(f"{number.name} during the tiles", f"exit {code} after {took:.1f} s, rerun identical")


def test_worker_frozen(run: Run, uninterrupted: Contents, row: Row) -> None:
    """A short freeze costs its length; in the long form the process is replaced."""
    seconds = 15.0 if FULL else 0.5
    run.start(tile_seconds=TILE_SECONDS)
    victim = run.workers()[0]
    run.wait_for(lambda: run.tiles() >= 3)
    send(victim, signal.SIGSTOP)
    time.sleep(seconds)
    send(victim, signal.SIGCONT)
    run.ends(0, PATIENCE)
    assert run.contents() == uninterrupted
    row(f"SIGSTOP of a worker for {seconds:g} s, then SIGCONT", "identical, the same run went on")


def test_run_frozen_past_its_lease(
    forge: Forge, small_run: Run, small_uninterrupted: Contents, row: Row
) -> None:
    """Another takes over and finishes; the sleeper awakes, finds its lease gone and begins no other record."""
    patience = 30.0 if FULL else 1.0
    few = [("patience", patience)]
    small_run.start("gram", "--cluster", "serial", inject=few, tile_seconds=0.1)
    small_run.wait_for(lambda: small_run.tiles() >= 3)
    send(small_run.pid, signal.SIGSTOP)
    before = len(small_run.recorded())
    heir = Run(forge, small_run.config, small_run.out)
    heir.log_file = heir.log_file.with_name("heir.log")
    heir.start("gram", "--cluster", "serial", inject=few)
    heir.ends(0, patience + PATIENCE)
    assert "watching its heartbeat" in heir.log()
    after = heir.recorded()
    assert before < len(after) and heir.tiles() == 21
    send(small_run.pid, signal.SIGCONT)
    small_run.ends(2, PATIENCE)
    assert "lost its lease" in small_run.said() and "hint: rerun" in small_run.said()
    # An append that was under way when it was stopped is finished; it ranks below the heir's (see the journal).
    assert sum(heir.recorded().values()) - sum(after.values()) <= 1
    assert heir.contents() == small_uninterrupted
    row("SIGSTOP of a run past its lease, then SIGCONT", "another finishes, identical; the sleeper exits 2")


@pytest.mark.parametrize("years", [(10, -10), (-50, 50)] if FULL else [(10, -10)])
def test_clock_moved_by_years(
    forge: Forge, small_run: Run, small_uninterrupted: Contents, row: Row, years: tuple[int, int]
) -> None:
    """Between a killed run and its rerun, and between a run and a second one beside it."""
    first, second = years
    small_run.start("gram", "--cluster", "serial", inject=[("clock", first)], tile_seconds=0.05)
    small_run.wait_for(lambda: small_run.tiles() >= 3)
    rival = Run(forge, small_run.config, small_run.out)
    rival.log_file = rival.log_file.with_name("rival.log")
    rival.finish("gram", "--cluster", "serial", inject=[("clock", second)], code=2)
    assert "is in use" in rival.said()
    assert small_run.poll() is None
    small_run.kill()
    before = small_run.recorded()
    small_run.finish("gram", "--cluster", "serial", inject=[("clock", second)])
    assert all(small_run.recorded()[chunk] == count for chunk, count in before.items())
    assert small_run.contents() == small_uninterrupted
    row(
        f"clock moved by {first:+d}, then {second:+d} years", "a second run refused (exit 2), rerun identical"
    )


def test_two_runs_on_one_directory(forge: Forge, run: Run, uninterrupted: Contents, row: Row) -> None:
    run.start(tile_seconds=4 * TILE_SECONDS)
    run.wait_for(lambda: run.tiles() >= 1)
    second = Run(forge, run.config, run.out)
    second.log_file = second.log_file.with_name("second.log")
    second.finish(code=2)
    assert "is in use" in second.said() and "hint: wait until it has finished" in second.said()
    run.ends(0)
    assert run.contents() == uninterrupted
    row("two runs on one directory", "the second refused (exit 2), the first identical")


def test_share_that_died_is_completed(
    forge: Forge, small_run: Run, small_uninterrupted: Contents, row: Row
) -> None:
    """By the whole run that follows, and by the same share again, without a tile computed twice."""
    small_run.start("gram", "--shard", "1/3", tile_seconds=0.05)
    small_run.wait_for(lambda: len(small_run.recorded()) >= 2)
    small_run.kill()
    small_run.start("gram", "--shard", "2/3", tile_seconds=0.05)
    small_run.wait_for(lambda: len(small_run.recorded()) >= 5)
    small_run.kill()
    before = small_run.recorded()
    small_run.finish("gram", "--shard", "2/3")
    small_run.finish("gram", "--cluster", "serial")
    assert all(small_run.recorded()[chunk] == 1 for chunk in before)
    assert small_run.contents() == small_uninterrupted
    row("kill -9 of two shares of three", "completed by the share again and by a run, identical")
