"""Arrays made, kept, removed and moved; writers that are killed, and disks that are full."""

import os
import pickle
import shutil
import subprocess
import sys

import pytest

from pipeline.errors import InputError
from pipeline.store.faults import TileError
from tests.store.stored_arrays import NAME, UPPER, N, block_of, chunk_file, create, fill, missing, open_store


def test_create_keeps_what_is_equal(store):
    assert not create(store)
    assert not create(open_store(store.directory), attributes={"unit": "changed"})
    assert store.verify() == []


CHANGES = [
    {"fingerprint": "g"},
    {"shape": (N + 1, N + 1)},
    {"chunks": (5, 5)},
    {"dtype": "float32"},
    {"compression": "lz4"},
]


@pytest.mark.parametrize("change", CHANGES)
def test_create_removes_what_differs_with_its_records(store, change):
    with pytest.raises(ValueError, match="writer"):
        create(store, **change)
    assert store.verify() == []
    create(store, "gram/nngp")
    fill(store, "gram/nngp")
    with store.journal.writer() as writer:
        assert create(store, **change, writer=writer)
    for seen in (store, open_store(store.directory)):
        assert missing(seen) == UPPER
        assert seen.unrecorded(NAME) == []
        assert all(seen.adopt(NAME, key) is None for key in UPPER)
        with pytest.raises(TileError, match="no record"):
            seen.read(NAME, (0, 0))
        assert seen.verify() == []
        assert len(seen.journal.records("gram/nngp")) == 6
    assert not chunk_file(store, (0, 0)).exists()


def test_a_removal_cut_short_is_finished_by_the_next_create(store):
    # Records are gone, some chunks and the metadata are still there: the state after a kill.
    with store.journal.writer() as writer:
        writer.invalidate(NAME)
    chunk_file(store, (0, 0)).unlink()
    again = open_store(store.directory)
    assert create(again, fingerprint="g")
    assert all(again.adopt(NAME, key) is None for key in UPPER)


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"zarr_format": 3, "node_type": "array"}'])
@pytest.mark.faults("an array's metadata damaged", "exit 2, named")
def test_damaged_metadata(store, text):
    (store.directory / "store.zarr" / NAME / "zarr.json").write_text(text)
    again = open_store(store.directory)
    with pytest.raises(TileError, match="metadata is damaged"):
        again.read(NAME, (0, 0))
    with pytest.raises(InputError, match="metadata is damaged"):
        again.array(NAME)
    assert [fault.key for fault in again.verify()] == UPPER
    with again.journal.writer() as writer:
        assert create(again, writer=writer)
    assert all(again.adopt(NAME, key) is None for key in UPPER)


def test_a_removed_array_is_forgotten(store):
    with store.journal.writer() as writer:
        store.remove(NAME, writer)
    store.journal.refresh()
    assert not store.exists(NAME)
    assert store.journal.arrays() == []
    assert store.verify() == []
    assert create(store)


def test_an_array_whose_files_are_gone_is_all_faults(store):
    shutil.rmtree(store.directory / "store.zarr")
    again = open_store(store.directory, writable=False)
    assert [fault.key for fault in again.verify()] == UPPER


def test_an_array_that_is_not_there(tmp_path):
    store = open_store(tmp_path, writable=False)
    assert not store.exists(NAME)
    with pytest.raises(InputError, match="no such array"):
        store.array(NAME)
    assert not (tmp_path / "store.zarr").exists()


def test_a_reader_changes_nothing(store):
    reader = open_store(store.directory, writable=False)
    with pytest.raises(ValueError, match="read-only"):
        reader.write(NAME, (0, 0), block_of((0, 0)))
    assert (reader.read(NAME, (0, 0)) == block_of((0, 0))).all()


def test_a_killed_writer_leaves_no_tile_but_litter_that_is_swept(store):
    litter = chunk_file(store, (0, 1)).with_name("1.0123.partial")
    litter.write_bytes(b"half a tile")
    assert store.verify() == []
    assert store.sweep() == 1
    assert not litter.exists()
    assert store.verify() == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "store.zarr").write_text("a file in the way")
    with pytest.raises(InputError, match="cannot create the array") as caught:
        create(open_store(tmp_path))
    assert str(tmp_path) in caught.value.message and caught.value.hint


def test_a_disk_that_fills_up_during_a_write(store):
    code = """
import pickle, resource, signal, sys, numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    pickle.loads(bytes.fromhex(sys.argv[1])).write("gram/ntk", (0, 0), np.zeros((4, 4)))
except Exception as error:
    print(type(error).__name__, error.exit_code, error)
"""
    seen = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(store).hex()], capture_output=True, text=True, check=True
    )
    assert seen.stdout.startswith("InputError 2 ") and "File too large" in seen.stdout
    assert str(chunk_file(store, (0, 0))) in seen.stdout
    assert store.verify() == []  # The old tile is still there, whole.
    assert store.sweep() == 0


KILLED = """
import os, sys
import pipeline.store.files as files
replace, moments = files.Path.replace, int(sys.argv[2])
def dies_before(self, target):
    os._exit(9)
def dies_after(self, target):
    replace(self, target)
    os._exit(9)
files.Path.replace = (dies_before, dies_after)[moments]
import pickle, numpy as np
pickle.loads(bytes.fromhex(sys.argv[1])).write("gram/ntk", (0, 1), np.ones((4, 4)))
"""


@pytest.mark.parametrize("moment", [0, 1])
@pytest.mark.faults("death before and after the rename of a tile", "the old tile or the new one, whole")
def test_death_around_the_rename_leaves_the_old_tile_or_the_new(tmp_path, moment):
    store = open_store(tmp_path)
    create(store)
    died = subprocess.run([sys.executable, "-c", KILLED, pickle.dumps(store).hex(), str(moment)])
    assert died.returncode == 9
    record = store.adopt(NAME, (0, 1))
    assert (record is not None) == bool(moment)
    assert store.sweep() == 1 - moment


def test_a_store_can_be_moved(store, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "run"
    shutil.copytree(store.directory, moved)
    again = open_store(moved)
    assert again.verify() == []
    assert not create(again)
    assert os.fspath(again.directory) == os.fspath(moved)
