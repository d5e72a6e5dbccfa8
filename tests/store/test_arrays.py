import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.store.arrays import ArrayStore
from pipeline.store.digest import digest
from pipeline.store.faults import TileError
from pipeline.store.format import Spec
from pipeline.store.journal import Journal

NAME = "gram/ntk"
N, TILE = 10, 4


def open_store(directory, writable=True):
    return ArrayStore(directory, Journal(directory).load(), writable=writable)


def block_of(key, seed=0):
    rows, columns = (min(TILE, N - TILE * index) for index in key)
    return np.random.default_rng([seed, *key]).standard_normal((rows, columns))


def create(store, name=NAME, **changes):
    usual = {"shape": (N, N), "chunks": (TILE, TILE), "dtype": "float64", "fingerprint": "f"}
    return store.create(name, **(usual | changes))


UPPER = [(i, j) for i in range(3) for j in range(i, 3)]


def fill(store, name=NAME, keys=UPPER, seed=0):
    records = []
    for key in keys:
        block = block_of(key, seed)
        checksum, nbytes = store.write(name, key, block)
        records.append(Record(name, key, checksum, block.shape, "float64", 0.1, nbytes, "h:1", 0.0))
    with store.journal.writer() as writer:
        writer.append(records)
    return records


def store_all(store, name, values):
    records = []
    for key in store.keys(name):
        block = values[store.region(name, key)]
        checksum, nbytes = store.write(name, key, block)
        records.append(Record(name, key, checksum, block.shape, str(block.dtype), 0.1, nbytes, "h:1", 0.0))
    with store.journal.writer() as writer:
        writer.append(records)


def missing(store, keys=UPPER, name=NAME):
    return [key for key in keys if (name, key) not in store.journal.done([name])]


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path)
    create(store)
    fill(store)
    return store


def chunk_file(store, key, name=NAME):
    return store.directory / "store.zarr" / name / "c" / "/".join(map(str, key))


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_blocks_come_back_bit_for_bit(tmp_path, compression, dtype):
    store = open_store(tmp_path)
    assert create(store, dtype=dtype, compression=compression)
    records = []
    for key in UPPER:
        block = (100 * block_of(key)).astype(dtype)
        checksum, nbytes = store.write(NAME, key, block)
        assert nbytes == chunk_file(store, key).stat().st_size
        records.append(Record(NAME, key, checksum, block.shape, dtype, 0.1, nbytes, "h:1", 0.0))
    with store.journal.writer() as writer:
        writer.append(records)
    for other in (store, open_store(tmp_path, writable=False)):
        for key in UPPER:
            back = other.read(NAME, key)
            assert back.dtype == dtype
            assert back.tobytes() == (100 * block_of(key)).astype(dtype).tobytes()
            assert back.shape == block_of(key).shape
    assert store.verify() == []


def test_the_layout_on_disk(store):
    metadata = json.loads((store.directory / "store.zarr" / NAME / "zarr.json").read_text())
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "crc32c"]
    assert metadata["fill_value"] == "NaN"
    assert metadata["attributes"]["fingerprint"] == "f"
    store.create("gram/nngp", (N, N), (TILE, TILE), "float64", compression="zstd", fingerprint="f")
    metadata = json.loads((store.directory / "store.zarr/gram/nngp/zarr.json").read_text())
    assert [codec["name"] for codec in metadata["codecs"]] == ["bytes", "blosc", "crc32c"]
    group = zarr.open_group(store.directory / "store.zarr", mode="r")
    assert sorted(group["gram"].array_keys()) == ["nngp", "ntk"]  # type: ignore[union-attr]
    assert Spec.of(store.array("gram/nngp")) == Spec((N, N), (TILE, TILE), "float64", "zstd", "f")


def test_any_axis_order_and_extra_axes(tmp_path):
    store = open_store(tmp_path)
    values = np.random.default_rng(0).standard_normal((7, 3, 5))
    store.create("inputs/x_train", values.shape, (4, 3, 5), "float64", fingerprint="f")
    assert list(store.keys("inputs/x_train")) == [(0, 0, 0), (1, 0, 0)]
    store_all(store, "inputs/x_train", np.asfortranarray(values))
    assert (store.read_all("inputs/x_train") == values).all()
    assert (store.read("inputs/x_train", (1, 0, 0)) == values[4:]).all()


def test_a_chunk_of_fill_values_is_stored(tmp_path):
    store = open_store(tmp_path)
    store.create("labels", (4,), (2,), "int64", fingerprint="f")
    store_all(store, "labels", np.zeros(4, np.int64))
    assert (store.read_all("labels") == 0).all()
    chunk_file(store, (1,), "labels").unlink()
    with pytest.raises(TileError, match="missing"):
        store.read("labels", (1,))


def test_a_wrong_block_is_refused(store):
    with pytest.raises(ValueError, match=r"expected float64 \(4, 2\), got float64 \(4, 4\)"):
        store.write(NAME, (0, 2), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="got float32"):
        store.write(NAME, (0, 0), np.zeros((4, 4), np.float32))
    with pytest.raises(IndexError, match=r"no chunk \(0, 3\)"):
        store.write(NAME, (0, 3), np.zeros((4, 4)))
    with pytest.raises(TileError, match="no record"):
        store.read(NAME, (-1, 0))
    assert store.adopt(NAME, (0, 3)) is None
    assert store.adopt(NAME, (0,)) is None


def damage(how, path, store):
    octets = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
    elif how == "swapped":
        other = chunk_file(store, (0, 0) if path != chunk_file(store, (0, 0)) else (0, 1))
        kept = other.read_bytes()
        other.write_bytes(octets)
        path.write_bytes(kept)
    elif how == "a directory":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({
            "empty": b"",
            "four zeros": bytes(4),
            "truncated": bytes(octets[:-7]),
            "longer": bytes(octets) + b"x",
            "zeros": bytes(len(octets)),
        }[how])  # fmt: skip


DAMAGES = ["deleted", "swapped", "empty", "four zeros", "truncated", "longer", "zeros", "a directory"]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("key", [(1, 1), (0, 2)])
@pytest.mark.faults(
    "tile flipped, truncated, zero-length, deleted or swapped", "found and named; nobody gets its values"
)
def test_every_damage_is_found_and_named(tmp_path, how, key, compression):
    store = open_store(tmp_path)
    create(store, compression=compression)
    fill(store)
    damage(how, chunk_file(store, key), store)
    for reader in (store, open_store(tmp_path, writable=False)):
        with pytest.raises(TileError) as caught:
            reader.read(NAME, key)
        assert NAME in caught.value.message and f"({key[0]}, {key[1]})" in caught.value.message
        assert caught.value.hint == f"ntk verify {tmp_path} --repair"
        assert caught.value.exit_code == 1
        with pytest.raises(TileError):
            reader.read(NAME, key)
    faults = store.verify()
    assert key in [fault.key for fault in faults]
    assert len(faults) == (2 if how == "swapped" else 1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (TileError, str(caught.value))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.faults("any single bit of a tile flipped", "found")
def test_no_flipped_bit_is_overlooked(tmp_path_factory, compression, data):
    directory = tmp_path_factory.getbasetemp() / f"flip-{compression}"
    store = open_store(directory)
    if create(store, compression=compression):
        fill(store)
    path = chunk_file(store, (0, 2))  # An edge tile: bits of its padding count too.
    sound = path.read_bytes()
    flipped = bytearray(sound)
    flipped[data.draw(st.integers(0, len(sound) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        path.write_bytes(flipped)
        with pytest.raises(TileError, match="damaged"):
            store.read(NAME, (0, 2))
        assert store.adopt(NAME, (0, 2)) is None
    finally:
        path.write_bytes(sound)
    assert (store.read(NAME, (0, 2)) == block_of((0, 2))).all()


def test_a_tile_without_record_is_not_read_but_adopted(tmp_path):
    store = open_store(tmp_path)
    create(store)
    checksum, nbytes = store.write(NAME, (0, 1), block_of((0, 1)))
    with pytest.raises(TileError, match="no record"):
        store.read(NAME, (0, 1))
    assert missing(store) == UPPER
    assert store.unrecorded(NAME) == [(0, 1)]
    assert store.adopt(NAME, (0, 0)) is None
    record = store.adopt(NAME, (0, 1))
    assert record is not None
    assert (record.digest, record.nbytes, record.shape, record.dtype) == (checksum, nbytes, (4, 4), "float64")
    with store.journal.writer() as writer:
        writer.append([record])
    assert (store.read(NAME, (0, 1)) == block_of((0, 1))).all()
    assert store.unrecorded(NAME) == []
    assert missing(store) == [key for key in UPPER if key != (0, 1)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_adopted(tmp_path, value):
    store = open_store(tmp_path)
    create(store)
    block = block_of((0, 2))
    block[3, 1] = value
    store.write(NAME, (0, 2), block)
    assert store.adopt(NAME, (0, 2)) is None


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "swapped"])
def test_what_is_damaged_is_not_adopted(store, how):
    damage(how, chunk_file(store, (0, 1)), store)
    assert store.adopt(NAME, (0, 1)) is None


def test_repair_by_discarding_and_writing_again(store):
    damage("swapped", chunk_file(store, (0, 1)), store)
    faults = store.verify()
    with store.journal.writer() as writer:
        store.discard(NAME, [fault.key for fault in faults], writer)
    store.journal.refresh()
    assert missing(store) == [(0, 0), (0, 1)]
    assert [store.adopt(NAME, fault.key) for fault in faults] == [None, None]
    fill(store, keys=[(0, 0), (0, 1)])
    assert store.verify() == []
    assert (store.read(NAME, (0, 1)) == block_of((0, 1))).all()


def test_verify_tells_how_far_it_is(store):
    seen = []
    store.verify([NAME], lambda done, total: seen.append((done, total)))
    assert seen == [(count, 6) for count in range(1, 7)]


def test_a_reader_elsewhere_sees_what_is_recorded_later(tmp_path):
    store = open_store(tmp_path)
    create(store)
    reader = pickle.loads(pickle.dumps(store))
    fill(store, keys=[(0, 0)])
    assert (reader.read(NAME, (0, 0)) == block_of((0, 0))).all()
    fill(store, keys=[(0, 0)], seed=1)  # Computed again, to other values.
    assert (reader.read(NAME, (0, 0)) == block_of((0, 0), 1)).all()


def test_a_worker_process_reads_through_the_same_class(store):
    code = (
        "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).read('gram/ntk', (0, 2)).sum())"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code, pickle.dumps(store).hex()], capture_output=True, text=True, check=True
    )
    assert float(seen.stdout) == block_of((0, 2)).sum()


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


def test_a_tile_is_hashed_once_until_its_file_or_its_record_changes(store, monkeypatch):
    hashed = []
    monkeypatch.setattr("pipeline.store.arrays.digest", lambda values: hashed.append(1) or digest(values))
    file = chunk_file(store, (0, 1))
    old = os.stat(file).st_mtime_ns - 10**10

    def counted(tile):
        hashed.clear()
        np.testing.assert_array_equal(store.view(NAME, (0, 1)), tile)
        return len(hashed)

    assert counted(block_of((0, 1))) == 1
    assert counted(block_of((0, 1))) == 1  # Written a moment ago: its time proves nothing yet.
    os.utime(file, ns=(old, old))
    assert [counted(block_of((0, 1))) for _ in range(3)] == [1, 0, 0]
    fill(store, keys=[(0, 1)], seed=1)
    assert counted(block_of((0, 1), seed=1)) == 1
    os.utime(file, ns=(old, old))
    store.view(NAME, (0, 1))
    content = bytearray(file.read_bytes())
    content[9] ^= 1
    file.write_bytes(content)
    with pytest.raises(TileError, match="digests differ"):
        store.view(NAME, (0, 1))
