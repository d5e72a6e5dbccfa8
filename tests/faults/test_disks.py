"""Disks that fill up or become read-only: the run ends and says why, and goes on where there is space again."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import FULL, PATIENCE, Contents, Disk, Forge, Run, ended

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

Row = Callable[[str, str], None]

PAGE = 4096

SIZES = range(3, 42, 3) if FULL else (9, 18, 40)
"""Pages of a disk that is too small: for the run's first files, for its inputs, for its tiles."""


def test_disk_full(forge: Forge, small_config, small_uninterrupted: Contents, disk: Disk, row: Row) -> None:
    """Wherever it is full, while the run is prepared, in a tile or in the journal."""
    for pages in SIZES:
        disk.remount(f"size={pages * PAGE}")
        with ended(Run(forge, small_config, disk.path / f"out{pages}")) as run:
            run.log_file = disk.path.parent / f"{pages}.log"
            run.start("gram", "--cluster", "serial")
            run.ends(2, PATIENCE)
            assert "No space left on device" in run.said(), run.log()
            assert "hint: free some space there, or run with --out" in run.said(), run.log()
            before = run.recorded()
            disk.remount("size=64m")
            run.finish("gram", "--cluster", "serial")
            assert all(run.recorded()[chunk] == count for chunk, count in before.items())
            assert run.contents() == small_uninterrupted
        for file in sorted(run.out.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        run.out.rmdir()
    row(f"disk full, {len(SIZES)} sizes", "exit 2 with path and remedy, rerun with space identical")


def test_disk_full_under_workers(forge: Forge, config, uninterrupted: Contents, disk: Disk, row: Row) -> None:
    disk.remount(f"size={150 * PAGE}")
    with ended(Run(forge, config, disk.path / "out")) as run:
        run.log_file = disk.path.parent / "log"
        run.start()
        run.ends(2, PATIENCE)
        assert "No space left on device" in run.said(), run.log()
        before = run.recorded()
        disk.remount("size=64m")
        run.finish("gram", "--cluster", "serial")
        assert before and all(run.recorded()[chunk] == count for chunk, count in before.items())
        assert run.contents() == uninterrupted
    row("disk full under two workers", "exit 2 with path and remedy, rerun with space identical")


def test_read_only_from_the_start_and_in_between(
    forge: Forge, small_config, small_uninterrupted: Contents, disk: Disk, row: Row
) -> None:
    with ended(Run(forge, small_config, disk.path / "out")) as run:
        run.log_file = disk.path.parent / "log"
        disk.remount("ro")
        run.finish("gram", "--cluster", "serial", code=2)
        assert "Read-only file system" in run.said() and "hint:" in run.said(), run.log()
        disk.remount("rw")
        run.start("gram", "--cluster", "serial", tile_seconds=0.05)
        run.wait_for(lambda: len(run.recorded()) >= 3)
        with disk.read_only(run.out / "store.zarr"):
            run.ends(2, PATIENCE)
        assert "Read-only file system" in run.said(), run.log()
        assert "hint: the file system is read-only: run with --out on another one" in run.said()
        before = run.recorded()
        run.finish("gram", "--cluster", "serial")
        assert all(run.recorded()[chunk] == count for chunk, count in before.items())
        assert run.contents() == small_uninterrupted
    row("read-only store, from the start and in between", "exit 2 with path and remedy, rerun identical")
