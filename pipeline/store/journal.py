"""The journal: what was computed and stored, by all writers together. Reads without numpy or zarr.

The truth about a run is the union of its segments (``pipeline.store.segments``), some of which other
processes and machines may be writing at this moment. Entries are ordered by (epoch, segment, line); the
latest about a chunk or a stage counts, and what stands before an invalidation of its array or chunk counts no
longer.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.plan.tasks import Chunk, Record
from pipeline.store.faults import disk_error
from pipeline.store.layout import RunLayout
from pipeline.store.place import ObjectPath, Place, place
from pipeline.store.segment_files import SegmentFiles
from pipeline.store.segment_objects import SegmentObjects
from pipeline.store.segments import Rank, decode_lines

if TYPE_CHECKING:
    from pipeline.store.writer import JournalWriter

# Where an entry stands: its segment's rank and its line in it.
Order = tuple[Rank, int]

# A record as ``Record.to_json`` begins it. Its chunk is all that is taken from a line at first: the rest is
# parsed when somebody asks, so that a journal of 100,000 records loads several times faster and half as large.
_RECORD = re.compile(rb'\{"array":"([^"\\]+)","key":\[([0-9,]*)\],"digest":')


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What a stage said about itself last.

    Attributes:
        name: as ``gram``.
        fingerprint: of everything that its result depends on.
        status: as ``started``, ``done`` or ``replacing``.
        metrics: its figures, JSON values.
        at: Unix time, for people only.
    """

    name: str
    fingerprint: str
    status: str
    metrics: dict[str, Any]
    at: float


class Journal:
    """Reader of the journal of a run directory; safe to share between threads, cheap to send to a process.

    Args:
        directory: the run directory.
    """

    def __init__(self, directory: Place | str):
        self.directory = place(directory)
        self._path = RunLayout(self.directory).journal
        self._segments = segments_at(self._path)
        self._lock = threading.Lock()
        self._forget()

    def __reduce__(self):
        return (Journal, (self.directory,))

    def _forget(self) -> None:
        self._read: dict[Rank, tuple[int, int, int]] = {}  # bytes used, lines used, size when last looked at
        self._records: dict[str, dict[tuple[int, ...], tuple[Rank, int, bytes]]] = {}
        self._stages: dict[str, tuple[Order, StageRecord]] = {}
        self._array_floors: dict[str, Order] = {}
        self._chunk_floors: dict[Chunk, Order] = {}
        self._damaged: list[str] = []

    def load(self) -> Journal:
        """Read every segment from its start; returns the journal itself.

        Raises:
            InputError: a segment cannot be read.
        """
        with self._lock:
            self._forget()
            self._catch_up()
        return self

    def refresh(self) -> None:
        """Read what was appended by any writer since the last time.

        Raises:
            InputError: a segment cannot be read.
        """
        with self._lock:
            self._catch_up()

    def latest(self, array: str, key: tuple[int, ...]) -> Record | None:
        """The record of a chunk that counts, as of the last ``load`` or ``refresh``."""
        entry = self._records.get(array, {}).get(key)
        return None if entry is None else _parse(entry[2])

    def records(self, array: str) -> dict[tuple[int, ...], Record]:
        """The records of an array that count, by chunk."""
        return {key: _parse(body) for key, (_, _, body) in list(self._records.get(array, {}).items())}

    def arrays(self) -> list[str]:
        """Arrays with at least one record, sorted."""
        return sorted(name for name, records in self._records.items() if records)

    def done(self, arrays: Iterable[str]) -> set[Chunk]:
        """The chunks of these arrays that have a record."""
        return {(array, key) for array in arrays for key in self._records.get(array, ())}

    def stage(self, name: str) -> StageRecord | None:
        """The latest event of a stage."""
        entry = self._stages.get(name)
        return None if entry is None else entry[1]

    def stages(self) -> dict[str, StageRecord]:
        """The latest event of every stage."""
        return {name: record for name, (_, record) in self._stages.items()}

    @property
    def damaged(self) -> tuple[str, ...]:
        """Lines that are whole but fail their checksum, as ``segment:line``; they are not believed."""
        return tuple(self._damaged)

    def writer(self, guard: Callable[[], None] | None = None) -> JournalWriter:
        """A context manager that appends to a new segment; a process has one open at a time, under its lease.

        Args:
            guard: called before each append; raises when this process may no longer write (``Lease.check``).
        """
        from pipeline.store.writer import JournalWriter

        return JournalWriter(self.directory, guard)

    def _catch_up(self) -> None:
        try:
            sizes = self._segments.sizes()
            if any(sizes.get(rank, -1) < used for rank, (used, _, _) in self._read.items()):
                # A failed append was taken back, or someone removed a segment: what it said may be gone.
                self._forget()
            for rank, size in sizes.items():
                if self._read.get(rank, (0, 0, -1))[2] != size:
                    self._read_on(rank, size)
        except OSError as error:
            raise disk_error(error, self._path, "read the journal") from error

    def _read_on(self, rank: Rank, size: int) -> None:
        used, line, _ = self._read.get(rank, (0, 0, 0))
        bodies, length = decode_lines(self._segments.read(rank, used))
        for body in bodies:
            line += 1
            if body is None or not self._apply((rank, line), body):
                self._damaged.append(f"{rank[1]}:{line}")
        self._read[rank] = (used + length, line, size)

    def _apply(self, order: Order, body: bytes) -> bool:
        """Take in one entry, whatever was taken in before; False when a field is missing."""
        match = _RECORD.match(body)
        if match:
            key = tuple(map(int, match[2].split(b","))) if match[2] else ()
            self._take(order, match[1].decode(), key, body)
            return True
        entry = json.loads(body)
        try:
            if "digest" in entry:
                self._take(order, entry["array"], tuple(entry["key"]), body)
            elif "stage" in entry:
                stage = StageRecord(
                    entry["stage"], entry["fingerprint"], entry["status"], entry["metrics"], entry["at"]
                )
                if stage.name not in self._stages or self._stages[stage.name][0] < order:
                    self._stages[stage.name] = (order, stage)
            elif "invalid" in entry:
                self._invalidate(order, entry["invalid"], entry.get("keys"))
        except (KeyError, TypeError):
            return False
        return True

    def _take(self, order: Order, array: str, key: tuple[int, ...], body: bytes) -> None:
        records = self._records.setdefault(array, {})
        known = records.get(key)
        if (known is None or known[:2] < order) and self._counts(order, (array, key)):
            records[key] = (*order, body)

    def _counts(self, order: Order, chunk: Chunk) -> bool:
        """No invalidation after ``order`` is known that covers the chunk."""
        if chunk in self._chunk_floors and order < self._chunk_floors[chunk]:
            return False
        if self._array_floors:
            parts = chunk[0].split("/")
            for depth in range(1, len(parts) + 1):
                floor = self._array_floors.get("/".join(parts[:depth]))
                if floor is not None and order < floor:
                    return False
        return True

    def _invalidate(self, order: Order, prefix: str, keys: list[list[int]] | None) -> None:
        if keys is not None:
            records = self._records.get(prefix, {})
            for key in map(tuple, keys):
                self._chunk_floors[prefix, key] = max(order, self._chunk_floors.get((prefix, key), order))
                if key in records and records[key][:2] < order:
                    del records[key]
            return
        self._array_floors[prefix] = max(order, self._array_floors.get(prefix, order))
        for array, records in self._records.items():
            if array == prefix or array.startswith(prefix + "/"):
                for key in [key for key, entry in records.items() if entry[:2] < order]:
                    del records[key]


def segments_at(path: Place) -> SegmentFiles | SegmentObjects:
    """The segments of the journal there."""
    return SegmentObjects(path) if isinstance(path, ObjectPath) else SegmentFiles(path)


def _parse(body: bytes) -> Record:
    return Record.from_json(json.loads(body))
