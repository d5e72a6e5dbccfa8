"""A small array in a store, for the tests of stores: made, filled, looked at."""

import numpy as np

from pipeline.plan.tasks import Record
from pipeline.store.arrays import ArrayStore
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


def chunk_file(store, key, name=NAME):
    return store.directory / "store.zarr" / name / "c" / "/".join(map(str, key))
