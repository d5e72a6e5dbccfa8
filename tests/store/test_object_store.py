"""A run's store in a bucket: the laws that hold on a disk, kept over a network that fails now and then."""

from __future__ import annotations

import os
import pickle
import sys
import threading

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.store import bucket as bucket_module
from pipeline.store import segment_objects
from pipeline.store.arrays import ArrayStore
from pipeline.store.faults import StoreRefused, StoreUnreachable, TileError
from pipeline.store.journal import Journal
from pipeline.store.lease import Lease
from pipeline.store.place import ObjectPath, place, temporary_beside
from tests.object_store import KEY, SECRET, Proxy, Trouble, bucket, proxy, server  # noqa: F401
from tests.store.stored_arrays import NAME, UPPER, block_of, create, fill, open_store
from tests.store.test_journal import record


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "PATIENCE_SECONDS", 0.6)
    monkeypatch.setattr(bucket_module, "QUICK_SECONDS", 0.3)
    monkeypatch.setattr(bucket_module, "FIRST_PAUSE", 0.02)


def test_places_are_read_back_as_written(tmp_path) -> None:
    for text in ("runs/a", str(tmp_path)):
        assert str(place(text)) == text
    where = place("s3://bucket-1/runs/first/")
    assert where == ObjectPath("bucket-1", "runs/first")
    assert place(str(where)) == where == place(where)
    assert (where.name, str(where.parent), str(where / "run.yaml")) == (
        "first", "s3://bucket-1/runs", "s3://bucket-1/runs/first/run.yaml",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text", ["s3://", "s3://b", "s3://bucket", "s3://key:secret@bucket/a", "s3://bucket/a b", "s3://bucket/a/../b",
             "s3://bucket/a//b", "s3://Bucket/a", "gs://bucket/a", "https://host/bucket/a"],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a"):
        place(text)


def test_an_extra_that_is_missing_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(StoreRefused, match="obstore, which is not installed") as caught:
        bucket_module.Bucket("bucket")
    assert caught.value.exit_code == 2 and "ntk-pipeline[object-store]" in str(caught.value)


def test_chunks_come_back_as_recorded_and_faults_are_named(bucket) -> None:  # noqa: F811
    store = open_store(bucket)
    assert create(store) and not create(store)
    fill(store, keys=UPPER[1:])
    for reader in (open_store(bucket, writable=False), pickle.loads(pickle.dumps(store))):
        for key in UPPER[1:]:
            for block in (reader.read(NAME, key), reader.view(NAME, key)):
                assert block.tobytes() == block_of(key).tobytes()
    assert store.verify() == [] and store.names() == [NAME] and store.unrecorded(NAME) == []

    checksum, nbytes = store.write(NAME, (0, 0), block_of((0, 0)))
    with pytest.raises(TileError, match="no record"):
        store.read(NAME, (0, 0))
    assert store.unrecorded(NAME) == [(0, 0)]
    adopted = store.adopt(NAME, (0, 0))
    assert adopted is not None and (adopted.digest, adopted.nbytes) == (checksum, nbytes)

    store.chunk_file(NAME, (0, 1)).write_bytes(store.chunk_file(NAME, (0, 1)).read_bytes()[:-7])
    store.chunk_file(NAME, (1, 1)).unlink()
    store.chunk_file(NAME, (2, 2)).write_bytes(store.chunk_file(NAME, (1, 2)).read_bytes())
    faults = store.verify()
    assert [fault.key for fault in faults] == [(0, 1), (1, 1), (2, 2)]
    assert "damaged" in faults[0].cause and "missing" in faults[1].cause
    for fault in faults:
        with pytest.raises(TileError) as caught:
            store.view(NAME, fault.key)
        assert caught.value.hint == f"ntk verify {bucket} --repair"
        assert store.adopt(NAME, (1, 1)) is None
    with store.journal.writer() as writer:
        store.discard(NAME, [fault.key for fault in faults], writer)
    fill(store, keys=[fault.key for fault in faults])
    assert store.verify() == []
    with store.journal.writer() as writer:
        assert create(store, fingerprint="g", writer=writer)
    assert store.unrecorded(NAME) == [] and not store.chunk_file(NAME, (0, 1)).exists()


def test_chunks_that_pass_are_found(bucket) -> None:  # noqa: F811
    store, name = open_store(bucket), "passing/steps"
    store.create(name, (3, 4), (1, 4), "float64", fingerprint="f")
    store.write(name, (2, 0), np.ones((1, 4)))
    assert store.unrecorded(name) == [(2, 0)] and store.names() == [name]
    assert store.adopt(name, (2, 0)) is not None


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_chunks_come_back(bucket, compression) -> None:  # noqa: F811
    store = open_store(bucket)
    create(store, compression=compression)
    fill(store, keys=[(0, 2)])
    assert (store.view(NAME, (0, 2)) == block_of((0, 2))).all()


def test_a_journal_grows_by_whole_objects(bucket, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr(segment_objects, "BLOCK_BYTES", 500)
    reader = Journal(bucket).load()
    written = []
    with Journal(bucket).writer() as writer:
        for number in range(9):
            written.append(record((0, number), f"d{number}"))
            writer.append(written[-1:])
            reader.refresh()
            assert reader.records("gram/ntk") == {r.key: r for r in written}
    names = list((bucket / "journal").sizes())
    assert 2 < len(names) < 9, "full segments, and the last; none that was superseded"
    with Journal(bucket).writer() as writer:
        writer.invalidate("gram/ntk", [(0, 3)])
        writer.append([record((0, 4), "again")])
    for journal in (Journal(bucket).load(), reader):
        journal.refresh()
        assert journal.latest("gram/ntk", (0, 3)) is None
        assert journal.latest("gram/ntk", (0, 4)).digest == "again"  # type: ignore[union-attr]
        assert len(journal.records("gram/ntk")) == 8


def test_a_reader_beside_writers_misses_nothing(bucket) -> None:  # noqa: F811
    """Segments are replaced under its hands."""

    def write(who: int) -> None:
        with Journal(bucket).writer() as writer:
            for number in range(8):
                writer.append([record((who, number))])

    threads = [threading.Thread(target=write, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    reader, seen = Journal(bucket).load(), 0
    while any(thread.is_alive() for thread in threads):
        reader.refresh()
        assert len(reader.records("gram/ntk")) >= seen, "what was read is never forgotten"
        seen = len(reader.records("gram/ntk"))
    reader.refresh()
    assert len(reader.records("gram/ntk")) == 16 and reader.damaged == ()


def test_one_of_many_gets_the_lease(bucket) -> None:  # noqa: F811
    held, refused = [], []

    def take() -> None:
        lease = Lease(bucket, patience=20, beat=0.05)
        try:
            lease.acquire()
        except InputError as error:
            refused.append(error.message)
        else:
            held.append(lease)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 2
    assert all(f"{bucket} is in use" in message for message in refused)
    assert held[0].still_ours()
    held[0].release()
    assert not held[0].still_ours()
    with Lease(bucket, "shard-1-of-2", beat=0.05), Lease(bucket, "shard-2-of-2", beat=0.05) as second:
        second.check()


@pytest.mark.skipif(
    "NTK_TEST_S3" in os.environ, reason="a real server notices that the proxy changed the request"
)
@pytest.mark.faults("S3: a store that ignores If-None-Match", "exit 2 before anything is written, named")
def test_a_store_that_ignores_conditions_is_refused(proxy: Proxy, bucket) -> None:  # noqa: F811
    proxy.troubles.append(Trouble("unconditional", "PUT", times=np.inf))
    with pytest.raises(StoreRefused, match="replaces objects although it is told not to") as caught:
        Lease(bucket).acquire()
    assert caught.value.exit_code == 2 and "conditional writes" in str(caught.value.hint)


TROUBLES = [
    Trouble("busy", "PUT GET HEAD POST", times=3),
    Trouble("cut request", "PUT", "gram", times=2),
    Trouble("lost answer", "PUT", "gram", times=2),
    Trouble("lost answer", "PUT", "journal"),
    Trouble("cut answer", "GET", "/c/", times=2),
    Trouble("lost answer", "GET POST HEAD", times=3),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: f"{t.what}: {t.method}")
def test_what_passes_is_tried_again(proxy: Proxy, bucket, trouble: Trouble, impatient) -> None:  # noqa: F811
    store = open_store(bucket)
    create(store)
    proxy.troubles.append(trouble)
    fill(store)
    again = open_store(bucket, writable=False)
    for key in UPPER:
        assert again.read(NAME, key).tobytes() == block_of(key).tobytes()
    assert again.verify() == [] and again.journal.damaged == ()
    assert proxy.happened == {trouble.what: trouble.times}


@pytest.mark.parametrize("what", ["busy", "cut request", "silence"])
def test_what_stays_is_an_error_with_a_remedy(proxy: Proxy, bucket, what: str, impatient) -> None:  # noqa: F811
    store = open_store(bucket)
    create(store)
    fill(store)
    proxy.troubles.append(Trouble(what, "PUT GET HEAD POST", times=np.inf))
    for attempt in (
        lambda: store.write(NAME, (0, 0), block_of((0, 0))),
        lambda: open_store(bucket),
        lambda: Lease(bucket).acquire(),
        lambda: ArrayStore(bucket, store.journal).read(NAME, (0, 0)),
        store.verify,
    ):
        with pytest.raises(StoreUnreachable, match=f"s3://{bucket.bucket}/runs/a/.* cannot") as caught:
            attempt()
        assert caught.value.exit_code == 3 and "resumes" in str(caught.value.hint)
        assert KEY not in str(caught.value) and SECRET not in str(caught.value)
    if what == "busy":
        assert "the server answered 503 (SlowDown: Please reduce your request rate.)" in str(caught.value)
    proxy.troubles.clear()
    assert store.verify() == [], "an answer that was not had is no fault of a tile"


def test_what_will_not_pass_is_said_at_once(bucket, monkeypatch) -> None:  # noqa: F811
    elsewhere = ObjectPath("no-such-bucket", "runs/a")
    for attempt in (lambda: open_store(elsewhere).exists(NAME), lambda: Lease(elsewhere).acquire()):
        with pytest.raises(StoreRefused, match="NoSuchBucket"):
            attempt()


def test_nothing_is_left_of_a_temporary_place(bucket) -> None:  # noqa: F811
    with temporary_beside(bucket) as where:
        create(open_store(where))
        assert where.is_dir() and where.parent == bucket.parent
    assert not where.is_dir()
