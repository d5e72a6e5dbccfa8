"""Copies on a node's disk: made once whoever wants them, never of other values, gone with the last who uses them."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.store.arrays import ArrayStore
from pipeline.store.node_copies import FOLDER, NodeCopies
from tests.store.stored_arrays import NAME, UPPER, block_of, chunk_file, fill, open_store

READER = """
import os, sys
from pathlib import Path
from pipeline.store.node_copies import NodeCopies
from tests.store.stored_arrays import NAME, UPPER, open_store

store, read, reads = open_store(sys.argv[1], writable=False), [], 0
view = store.view

def counted(*arguments):
    global reads
    reads += 1
    return view(*arguments)

store.view = counted
copies = NodeCopies(Path(sys.argv[2]), sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for key in UPPER:
    copies.view(store, NAME, key)
print(reads, flush=True)
sys.stdin.readline()
copies.leave()
"""


def home(scratch: Path) -> Path:
    return scratch / f"{FOLDER}-{os.geteuid()}"


def copies_in(scratch: Path) -> list[Path]:
    return sorted(file for file in home(scratch).glob("*/*") if not file.suffix)


Reader = subprocess.Popen[str]


@pytest.fixture
def start() -> Iterator[Callable[[Path, Path], Reader]]:
    with contextlib.ExitStack() as stack:

        def begin(directory: Path, scratch: Path) -> Reader:
            process = subprocess.Popen(
                [sys.executable, "-c", READER, str(directory), str(scratch)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def ask(process: Reader) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: Reader) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def same(copies: NodeCopies, store: ArrayStore, seed: int = 0) -> bool:
    return all(copies.view(store, NAME, key).tobytes() == block_of(key, seed).tobytes() for key in UPPER)


def test_what_is_copied_is_not_read_again(store: ArrayStore, tmp_path: Path) -> None:
    copies = NodeCopies(tmp_path / "scratch", tmp_path)
    assert same(copies, store)
    for key in UPPER:
        chunk_file(store, key).unlink()
    for again in (copies, NodeCopies(tmp_path / "scratch", tmp_path)):
        assert same(again, store)
        assert not again.view(store, NAME, UPPER[0]).flags.writeable


def test_processes_of_a_node_share_one_reading_and_the_last_one_removes_it(
    store: ArrayStore, tmp_path: Path, start: Callable[[Path, Path], Reader]
) -> None:
    scratch = tmp_path / "scratch"
    both = [start(tmp_path, scratch), start(tmp_path, scratch)]
    assert [ask(process) for process in both] == ["ready", "ready"]
    for process in both:
        tell(process)
    assert sum(int(ask(process)) for process in both) == len(UPPER)
    for process, left in zip(both, (len(UPPER), 0), strict=True):
        tell(process)
        assert process.wait(30) == 0
        assert len(copies_in(scratch)) == left
    assert list(home(scratch).iterdir()) == []


def test_a_killed_process_leaves_copies_for_its_run_and_none_for_others(
    store: ArrayStore, tmp_path: Path, start: Callable[[Path, Path], Reader]
) -> None:
    scratch = tmp_path / "scratch"
    killed = start(tmp_path, scratch)
    ask(killed)
    tell(killed)
    assert int(ask(killed)) == len(UPPER)
    other = NodeCopies(scratch, tmp_path / "other")
    same(other, store)
    assert len(copies_in(scratch)) == 2 * len(UPPER), "one that is in use stays"
    other.leave()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    next_of_its_run = start(tmp_path, scratch)
    ask(next_of_its_run)
    tell(next_of_its_run)
    assert ask(next_of_its_run) == "0"
    next_of_its_run.kill()
    next_of_its_run.wait()
    other = NodeCopies(scratch, tmp_path / "other")
    same(other, store)
    assert len(copies_in(scratch)) == len(UPPER), "one that nobody uses goes"
    other.leave()


@pytest.mark.parametrize("damage", [b"", b"\0", b"x" * 132])
def test_a_damaged_copy_is_made_anew(store: ArrayStore, tmp_path: Path, damage: bytes) -> None:
    copies = NodeCopies(tmp_path / "scratch", tmp_path)
    same(copies, store)
    for file in copies_in(tmp_path / "scratch"):
        file.write_bytes(
            (damage * file.stat().st_size)[: file.stat().st_size] if len(damage) == 1 else damage
        )
    assert same(NodeCopies(tmp_path / "scratch", tmp_path), store)


def test_other_values_have_other_copies(store: ArrayStore, tmp_path: Path) -> None:
    copies = NodeCopies(tmp_path / "scratch", tmp_path)
    same(copies, store)
    fill(store, seed=1)
    assert same(copies, open_store(tmp_path), seed=1)


@pytest.mark.parametrize("trouble", ["no directory", "open to others", "full"])
def test_a_scratch_that_fails_is_done_without(
    store: ArrayStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], trouble: str
) -> None:
    scratch = tmp_path / "scratch"
    if trouble == "no directory":
        scratch.write_text("")
    elif trouble == "open to others":
        home(scratch).mkdir(parents=True)
        home(scratch).chmod(0o777)
    copies = NodeCopies(scratch, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if trouble == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        assert same(copies, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert copies_in(scratch) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert f"inputs are read from the store: no copy in {scratch}: " in line
    copies.leave()


def test_what_has_no_record_is_refused_as_by_the_store(store: ArrayStore, tmp_path: Path) -> None:
    from pipeline.store.faults import TileError

    with pytest.raises(TileError, match="no record"):
        NodeCopies(tmp_path / "scratch", tmp_path).view(store, NAME, (2, 0))
    np.testing.assert_array_equal(open_store(tmp_path).read(NAME, (0, 0)), block_of((0, 0)))
