"""Any interleaving of writers, torn lines, invalidations and readers, against a replay in journal order."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pipeline.plan.tasks import Record
from pipeline.store.journal import Journal
from pipeline.store.segments import rank_of

ARRAYS = ("gram/ntk", "gram/nngp", "solution/alpha")
keys = st.tuples(st.integers(0, 1), st.integers(0, 1))
arrays = st.sampled_from(ARRAYS)
clocks = st.floats(0, 4e9).map(lambda t: round(t, 3))


class JournalMachine(RuleBasedStateMachine):
    writers = Bundle("writers")

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="journal-"))
        self.reader = Journal(self.directory)
        self.said = {}  # segment → its entries in order
        self.segment = {}  # writer → its segment
        self.count = 0

    def teardown(self):
        shutil.rmtree(self.directory)

    def segments(self):
        path = self.directory / "journal"
        return {file.name for file in path.iterdir()} if path.exists() else set()

    def append(self, writer, say, *entries):
        before = self.segments()
        say()
        name = self.segment.setdefault(writer, next(iter(self.segments() - before), None))
        self.said.setdefault(name, []).extend(entries)

    @rule(target=writers)
    def open_writer(self):
        return self.reader.writer()

    @rule(writer=writers, chunks=st.lists(st.tuples(arrays, keys), max_size=3), now=clocks)
    def record(self, writer, chunks, now):
        records = []
        for array, key in chunks:
            self.count += 1
            values = (f"{self.count}", (4, 4), "float64", 0.5, 132, "h:1", now)
            records.append(Record(array, key, *values))
        if records:
            self.append(writer, lambda: writer.append(records), *records)

    @rule(writer=writers, prefix=st.sampled_from([*ARRAYS, "gram", "g"]))
    def invalidate_arrays(self, writer, prefix):
        self.append(writer, lambda: writer.invalidate(prefix), (prefix, None))

    @rule(writer=writers, array=arrays, some=st.lists(keys, min_size=1, max_size=3))
    def invalidate_chunks(self, writer, array, some):
        self.append(writer, lambda: writer.invalidate(array, some), (array, set(some)))

    @rule(writer=consumes(writers), tail=st.binary(max_size=20).filter(lambda tail: b"\n" not in tail))
    def kill(self, writer, tail):
        """The writer dies and leaves a torn line."""
        writer.close()
        if writer in self.segment:
            with (self.directory / "journal" / self.segment[writer]).open("ab") as file:
                file.write(tail)

    @rule()
    def refresh(self):
        self.reader.refresh()

    @rule(offset=st.integers(-(10**9), 10**9))
    def move_the_clock(self, offset):
        for name in self.segments():
            os.utime(self.directory / "journal" / name, (10**9 + offset, 10**9 + offset))

    @invariant()
    def readers_agree_with_a_replay(self):
        known = {}
        for name in sorted(self.said, key=lambda name: rank_of(name) or (0, "")):
            for entry in self.said[name]:
                if isinstance(entry, Record):
                    known[entry.chunk] = entry
                    continue
                prefix, some = entry
                for array, key in list(known):
                    covered = array == prefix or (some is None and array.startswith(prefix + "/"))
                    if covered and (some is None or key in some):
                        del known[array, key]
        fresh = Journal(self.directory).load()
        self.reader.refresh()
        for journal in (fresh, self.reader):
            assert {r.chunk: r for a in ARRAYS for r in journal.records(a).values()} == known
            assert journal.done(ARRAYS) == set(known)
            assert journal.damaged == ()


JournalMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestJournal = JournalMachine.TestCase
