import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan.tasks import Record
from pipeline.store.digest import digest
from pipeline.store.faults import TileError
from pipeline.store.format import Spec
from tests.store.stored_arrays import (
    NAME,
    TILE,
    UPPER,
    N,
    block_of,
    chunk_file,
    create,
    fill,
    missing,
    open_store,
    store_all,
)


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


def test_a_tile_is_hashed_once_until_its_file_or_its_record_changes(store, monkeypatch):
    hashed = []
    monkeypatch.setattr("pipeline.store.reading.digest", lambda values: hashed.append(1) or digest(values))
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
