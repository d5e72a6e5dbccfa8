"""Chunks written over the files of others: sound, complete, and one file less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.plan.tasks import Record
from pipeline.store.arrays import ArrayStore
from pipeline.store.digest import digest
from pipeline.store.faults import TileError
from pipeline.store.journal import Journal

NAME, N, TILE = "passing/steps", 10, 4
KEYS = [(0, 0), (0, 2), (2, 2)]  # whole, cut in one direction, cut in both


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    made = ArrayStore(tmp_path, Journal(tmp_path).load(), writable=True)
    made.create(NAME, (5, N, N), (1, TILE, TILE), "float64", fingerprint="f")
    return made


def write(store: ArrayStore, step: int, key: tuple[int, int], *, spent: int) -> np.ndarray:
    shape = tuple(min(TILE, N - TILE * index) for index in key)
    block = np.random.default_rng([step, *key]).standard_normal((1, *shape))
    found, nbytes = store.write(NAME, (step, *key), block, spent=(spent, *key))
    assert found == digest(block)
    assert nbytes == store.chunk_file(NAME, (step, *key)).stat().st_size
    record = Record(NAME, (step, *key), found, block.shape, "float64", 0.1, nbytes, "h:1", 0.0)
    with store.journal.writer() as writer:
        writer.append([record])
    return block


@pytest.mark.parametrize("key", KEYS)
def test_what_is_written_over_is_read_back_every_way(store: ArrayStore, key: tuple[int, int]) -> None:
    old = write(store, 0, key, spent=-2)
    inode = store.chunk_file(NAME, (0, *key)).stat().st_ino
    assert np.array_equal(store.view(NAME, (0, *key)), old)
    new = write(store, 2, key, spent=0)
    assert store.chunk_file(NAME, (2, *key)).stat().st_ino == inode
    assert not store.chunk_file(NAME, (0, *key)).exists()
    out = np.empty_like(new)
    store.read_into(NAME, (2, *key), out)
    assert np.array_equal(out, new)
    assert np.array_equal(store.view(NAME, (2, *key)), new)
    # Through the codec, which checks the checksum.
    assert np.array_equal(store.read(NAME, (2, *key)), new)
    rows, columns = (slice(TILE * index, min(TILE * (index + 1), N)) for index in key)
    whole = zarr.open_array(store.directory / "store.zarr" / NAME, mode="r")
    assert np.array_equal(np.asarray(whole[2:3, rows, columns]), new)
    assert store.sweep() == 0


def test_a_file_that_changed_is_noticed(store: ArrayStore) -> None:
    block = write(store, 0, (0, 0), spent=-2)
    path = store.chunk_file(NAME, (0, 0, 0))
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(TileError, match="digests differ"):
        store.read_into(NAME, (0, 0, 0), np.empty_like(block))
    path.write_bytes(data[:9])
    with pytest.raises(TileError):
        store.read_into(NAME, (0, 0, 0), np.empty_like(block))


def test_an_array_may_be_compressed(store: ArrayStore) -> None:
    """Then nothing is written over, and all else is the same."""
    store.create(NAME, (5, N, N), (1, TILE, TILE), "float64", compression="zstd", fingerprint="g")
    block = write(store, 2, (0, 0), spent=0)
    out = np.empty_like(block)
    store.read_into(NAME, (2, 0, 0), out)
    assert np.array_equal(out, block)


def test_chunks_that_pass_lie_in_one_folder_and_are_found(store: ArrayStore) -> None:
    block = np.ones((1, TILE, TILE))
    store.write(NAME, (1, 0, 2), block[:, :, : N - 2 * TILE])
    store.write(NAME, (1, 0, 1), block, spent=(-1, 0, 1))
    folder = store.directory / "store.zarr" / NAME
    assert all(path.is_file() for path in folder.iterdir())
    assert store.unrecorded(NAME) == [(1, 0, 1), (1, 0, 2)]
    assert NAME in store.names()
    with store.journal.writer() as writer:
        store.remove(NAME, writer)
    assert not any(folder.iterdir())
    assert NAME not in store.names()
