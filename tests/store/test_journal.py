import json
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.store.journal import Journal
from pipeline.store.segment_files import SegmentFiles
from pipeline.store.segments import decode_lines, encode_lines


def record(key=(0, 0), digest="d", array="gram/ntk", **fields):
    usual = {
        "shape": (4, 4),
        "dtype": "float64",
        "seconds": 0.5,
        "nbytes": 132,
        "worker": "h:1",
        "started": 1.0,
    }
    return Record(array, key, digest, **(usual | fields))


def segment_of(directory) -> Path:
    return max((directory / "journal").iterdir())


def test_what_was_appended_is_read_back(tmp_path):
    records = [record((0, j), f"d{j}", note={"trace": 0.1 + j}, task=f"gram/0.{j}") for j in range(5)]
    with Journal(tmp_path).writer() as writer:
        writer.append(records[:2])
        writer.append(records[2:])
    journal = Journal(tmp_path).load()
    assert journal.records("gram/ntk") == {r.key: r for r in records}
    assert journal.latest("gram/ntk", (0, 3)) == records[3]
    assert journal.latest("gram/ntk", (3, 3)) is None
    assert journal.done(["gram/ntk", "gram/nngp"]) == {r.chunk for r in records}
    assert journal.arrays() == ["gram/ntk"]
    assert journal.damaged == ()


def test_what_passes_is_not_flushed_and_what_stays_is(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_size))
    with Journal(tmp_path).writer() as writer:
        writer.append([record()])
        before = len(flushed)
        writer.append([record(array="passing/x")])
        writer.invalidate_chunks({"passing/x": [(0, 0)]})
        assert len(flushed) == before
        writer.append([record(array="passing/x"), record((0, 1))])
        # A flush is of the file: what was written before is in it.
        assert flushed[before:] == [segment_of(tmp_path).stat().st_size]
    assert Journal(tmp_path).load().arrays() == ["gram/ntk", "passing/x"]


def test_no_journal_is_an_empty_one(tmp_path):
    journal = Journal(tmp_path / "nowhere").load()
    assert journal.arrays() == []
    assert journal.stage("gram") is None


def test_a_writer_that_says_nothing_leaves_nothing(tmp_path):
    with Journal(tmp_path).writer() as writer:
        writer.append([])
    assert not (tmp_path / "journal").exists()


def test_names_that_json_must_escape(tmp_path):
    odd = [record(array='a "quoted" \\ name'), record(array="größe/λ"), record(key=())]
    with Journal(tmp_path).writer() as writer:
        writer.append(odd)
    journal = Journal(tmp_path).load()
    assert all(journal.latest(*r.chunk) == r for r in odd)


def test_refresh_reads_only_what_is_new(tmp_path):
    reader = Journal(tmp_path).load()
    with Journal(tmp_path).writer() as writer:
        for j in range(4):
            writer.append([record((0, j), f"d{j}")])
            assert reader.latest("gram/ntk", (0, j)) is None
            reader.refresh()
            assert reader.latest("gram/ntk", (0, j)) is not None
            # Once read, the lines are not looked at again: damage to them goes unnoticed until a full load.
    text = segment_of(tmp_path).read_bytes()
    segment_of(tmp_path).write_bytes(b"X" + text[1:] + encode_lines([record((9, 9)).to_json()]))
    reader.refresh()
    assert reader.damaged == ()
    assert len(reader.records("gram/ntk")) == 5
    assert len(Journal(tmp_path).load().damaged) == 1


@given(st.binary(max_size=60), st.integers(0, 200))
def test_any_tail_and_any_cut_keep_the_whole_lines(garbage, cut):
    entries = [{"digest": "é", "array": "a", "n": n} for n in range(3)]
    data = encode_lines(entries)
    lines = data.splitlines(keepends=True)
    whole = [n for n in range(3) if len(b"".join(lines[: n + 1])) <= cut]
    bodies, used = decode_lines(data[:cut])
    assert [json.loads(body) for body in bodies if body] == [entries[n] for n in whole]
    assert used == len(b"".join(lines[: len(whole)]))
    bodies, _ = decode_lines(data + garbage)
    assert [json.loads(body) for body in bodies[:3] if body] == entries


@given(st.data())
@pytest.mark.faults("any single bit of the journal flipped", "costs its line only")
def test_a_flipped_bit_costs_its_line_only(data):
    entries = [{"array": "a", "n": n} for n in range(4)]
    lines = encode_lines(entries).splitlines(keepends=True)
    position = data.draw(st.integers(0, len(b"".join(lines)) - 1))
    flipped = bytearray(b"".join(lines))
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    believed = [json.loads(body) for body in decode_lines(bytes(flipped))[0] if body]
    starts = [len(b"".join(lines[:n])) for n in range(5)]
    hit = max(n for n in range(4) if starts[n] <= position)
    lost = {hit, hit + 1} if position == starts[hit + 1] - 1 else {hit}  # A lost newline joins two lines.
    assert believed == [entry for n, entry in enumerate(entries) if n not in lost]


def test_a_sound_line_that_means_nothing_is_passed_over(tmp_path):
    path = tmp_path / "journal"
    path.mkdir()
    bodies = [b'{"kind":"of a later version"}', b'{"stage":"gram"}', b"{}", b"[1]", b"null", b""]
    lines = [b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies]
    (path / "000001-h-1-a.jsonl").write_bytes(b"".join(lines))
    (path / "notes.txt").write_text("not a segment")
    journal = Journal(tmp_path).load()
    assert journal.arrays() == []
    assert journal.damaged == tuple(f"000001-h-1-a.jsonl:{n}" for n in (2, 4, 5, 6))


def test_later_epochs_win_whatever_the_clock_says(tmp_path, monkeypatch):
    for epoch, now in enumerate([2e9, 1e9, 0.0]):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        with Journal(tmp_path).writer() as writer:
            writer.append([record(digest=f"epoch {epoch}", started=time.time())])
            writer.stage("gram", f"epoch {epoch}", "done")
    journal = Journal(tmp_path).load()
    latest = journal.latest("gram/ntk", (0, 0))
    assert latest is not None and latest.digest == "epoch 2"
    stage = journal.stage("gram")
    assert stage is not None and stage.fingerprint == "epoch 2"
    for path in (tmp_path / "journal").iterdir():  # Times of files are no evidence either.
        os.utime(path, (0, 0))
    assert Journal(tmp_path).load().latest("gram/ntk", (0, 0)) == latest


def test_stages_remember_their_last_word(tmp_path):
    with Journal(tmp_path).writer() as writer:
        writer.stage("gram", "f", "started")
        writer.stage("gram", "f", "done", {"trace": 3.5})
        writer.stage("solve", "g", "started")
    journal = Journal(tmp_path).load()
    status = {name: stage.status for name, stage in journal.stages().items()}
    assert status == {"gram": "done", "solve": "started"}
    assert journal.stages()["gram"].metrics == {"trace": 3.5}


def test_invalidation_covers_what_came_before(tmp_path):
    with Journal(tmp_path).writer() as writer:
        writer.append([record((0, 0)), record((0, 1)), record(array="gram/nngp"), record(array="gramophone")])
        writer.invalidate("gram/ntk", [(0, 1)])
    journal = Journal(tmp_path).load()
    assert set(journal.records("gram/ntk")) == {(0, 0)}
    with Journal(tmp_path).writer() as writer:
        writer.invalidate("gram")
        writer.append([record((5, 5))])
    for seen in (journal, Journal(tmp_path)):
        seen.refresh()
        done = seen.done(["gram/ntk", "gram/nngp", "gramophone"])
        assert done == {("gram/ntk", (5, 5)), ("gramophone", (0, 0))}


@pytest.mark.faults("a sleeper writes after its lease was taken over", "ranks below its heir")
def test_a_sleeper_that_writes_after_the_takeover_ranks_below_it(tmp_path):
    with Journal(tmp_path).writer() as writer:
        writer.append([record(digest="first")])
    with Journal(tmp_path).writer() as sleeper, Journal(tmp_path).writer() as other:
        other.append([record((7, 7))])  # Of the same epoch as the sleeper.
        with Journal(tmp_path).writer() as taker:
            taker.invalidate("gram/ntk")
            sleeper.append([record(digest="late")])
            assert Journal(tmp_path).load().records("gram/ntk") == {}


def test_a_failed_append_that_is_taken_back_is_forgotten_by_readers(tmp_path):
    reader = Journal(tmp_path)
    with reader.writer() as writer:
        writer.append([record((0, 0))])
        kept = segment_of(tmp_path).stat().st_size
        writer.append([record((0, 1))])
    reader.refresh()
    assert len(reader.records("gram/ntk")) == 2
    os.truncate(segment_of(tmp_path), kept)
    reader.refresh()
    assert set(reader.records("gram/ntk")) == {(0, 0)}


def limited_append(directory, size):
    """Appends in a process whose files may not grow past ``size`` bytes (EFBIG stands in for a full disk)."""
    code = f"""
import resource, signal
from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.store.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
with Journal({str(directory)!r}).writer() as writer:
    for n in range(100):
        rows = [Record("gram/ntk", (n, m), "d", (4, 4), "float64", .5, 132, "h:1", 1.) for m in range(3)]
        try:
            writer.append(rows)
        except InputError as error:
            print(n, error.exit_code, str(error))
            break
    try:
        writer.append(rows)
    except ValueError as error:
        print(error)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("size", [1000, 1111, 1300, 2048])
@pytest.mark.faults("disk full while the journal is appended to", "whole batches only")
def test_a_disk_that_fills_up_leaves_whole_batches_only(tmp_path, size):
    said = limited_append(tmp_path, size)
    batches, code = map(int, said.split()[:2])
    assert code == 2
    assert str(tmp_path / "journal") in said and "File too large" in said and "hint:" in said
    assert "writer is closed" in said
    journal = Journal(tmp_path).load()
    assert set(journal.records("gram/ntk")) == {(n, m) for n in range(batches) for m in range(3)}
    assert journal.damaged == ()
    with journal.writer() as writer:
        writer.append([record((99, 99))])
    journal.refresh()
    assert journal.latest("gram/ntk", (99, 99)) is not None


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "journal").write_text("a file in the way")
    with pytest.raises(InputError, match="journal"):
        Journal(tmp_path).writer()
    with pytest.raises(InputError, match="journal"):
        Journal(tmp_path).load()


def test_the_guard_has_the_last_word(tmp_path):
    def lost():
        raise InputError("lost the lease")

    with Journal(tmp_path).writer(guard=lost) as writer, pytest.raises(InputError, match="lost the lease"):
        writer.append([record()])
    assert SegmentFiles(tmp_path / "journal").sizes() == {}


WRITE_FOR_EVER = """
import sys
from pipeline.plan.tasks import Record
from pipeline.store.journal import Journal
who = sys.argv[2]
with Journal(sys.argv[1]).writer() as writer:
    n = 0
    while True:
        writer.append([Record("gram/" + who, (n, m), who, (4, 4), "float64", .5, 132, "h:1", 1.) for m in (0, 1)])
        print(n, flush=True)
        n += 1
"""


def test_writers_that_are_killed_lose_nothing_that_they_were_told_is_stored(tmp_path):
    writers = {
        who: subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path), who], stdout=subprocess.PIPE, text=True
        )
        for who in "abc"
    }
    reader = Journal(tmp_path).load()
    told = {}
    try:
        for process in writers.values():
            assert process.stdout is not None
            for _ in range(20):
                process.stdout.readline()
            reader.refresh()
    finally:
        for process in writers.values():
            process.send_signal(signal.SIGKILL)
    for who, process in writers.items():
        assert process.stdout is not None
        lines = process.stdout.read().split()
        told[who] = int(lines[-1]) if lines else 19
        process.wait()
        process.stdout.close()
    reader.refresh()
    fresh = Journal(tmp_path).load()
    for who in "abc":
        assert reader.records(f"gram/{who}") == fresh.records(f"gram/{who}")
        assert {(n, m) for n in range(told[who] + 1) for m in (0, 1)} <= set(fresh.records(f"gram/{who}"))
        assert len(fresh.records(f"gram/{who}")) <= 2 * (told[who] + 2)


def test_a_hundred_thousand_records_load_fast_and_small(tmp_path):
    count = 100_000
    rows = [record((i // 400, i % 400), f"{i:032x}", note={"trace": 1.5 * i}, task="t") for i in range(count)]
    with Journal(tmp_path).writer() as writer:
        writer.append(rows)
    del rows
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.process_time()
    journal = Journal(tmp_path).load()
    done = journal.done(["gram/ntk"])
    seconds = time.process_time() - clock
    assert len(done) == count
    assert seconds < 3  # 0.6 s on a quiet core
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2000 * count
