"""The writing end of the journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any

from pipeline.plan.tasks import Record
from pipeline.store.faults import disk_error
from pipeline.store.journal import segments_at
from pipeline.store.layout import RunLayout
from pipeline.store.place import Place
from pipeline.store.scratch import is_flushed
from pipeline.store.segments import encode_lines


class JournalWriter:
    """Appends entries to a segment of its own, made at the first append. Made by ``Journal.writer``.

    When an append returns, its entries are on the disk; those about passing arrays (`pipeline.store.scratch`) like the
    chunks they tell of: safe from the death of the process, not from a power cut. When it raises, they are cut off
    again (and half a line would fail its checksum; in a bucket they may stay, which harms nothing), and the writer is
    closed.

    Args:
        directory: the run directory.
        guard: called before each append; raises when this process may no longer write.
    """

    def __init__(self, directory: Place, guard: Callable[[], None] | None = None):
        self._path = RunLayout(directory).journal
        self._guard = guard
        self._closed = False
        segments = segments_at(self._path)
        try:
            # Fixed now, not at the first append: whoever takes over from a sleeping process ranks above it.
            epoch = 1 + max((epoch for epoch, _ in segments.sizes()), default=0)
        except OSError as error:
            raise disk_error(error, self._path, "read the journal") from error
        self._segment = segments.begin(epoch)

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, records: Iterable[Record]) -> None:
        """Append records, flushed to disk once for all of them (unless all are of passing arrays).

        Raises:
            InputError: the disk refuses (path, cause and remedy in the message), or the guard does.
            ValueError: the writer is closed.
        """
        records = list(records)
        flush = any(is_flushed(record.array) for record in records)
        self._append([record.to_json() for record in records], flush=flush)

    def stage(self, name: str, fingerprint: str, status: str, metrics: dict[str, Any] | None = None) -> None:
        """Append what a stage has to say about itself (``StageRecord``). Raises as ``append``."""
        self._append([{
            "stage": name,
            "fingerprint": fingerprint,
            "status": status,
            "metrics": metrics or {},
            "at": round(time.time(), 3),
        }])  # fmt: skip

    def invalidate(self, array: str, keys: Iterable[tuple[int, ...]] | None = None) -> None:
        """From here on, no earlier record counts of these chunks, or of the whole array and of every array
        below that name (``gram`` covers ``gram/ntk``). Raises as ``append``."""
        entry: dict[str, Any] = {"invalid": array}
        if keys is not None:
            entry["keys"] = [list(key) for key in keys]
        self._append([entry])

    def invalidate_chunks(self, chunks: Mapping[str, Iterable[tuple[int, ...]]]) -> None:
        """From here on, no earlier record counts of these chunks of these arrays; flushed to disk as by ``append``, and
        raises as that."""
        entries = [{"invalid": array, "keys": [list(key) for key in keys]} for array, keys in chunks.items()]
        self._append(entries, flush=any(map(is_flushed, chunks)))

    def close(self) -> None:
        """Close the segment; nothing can be appended after that."""
        self._closed = True
        self._segment.close()

    def _append(self, entries: list[dict[str, Any]], *, flush: bool = True) -> None:
        if self._closed:
            raise ValueError(f"{self._path}: the journal writer is closed")
        if not entries:
            return
        if self._guard is not None:
            self._guard()
        data = encode_lines(entries)
        try:
            self._segment.append(data, flush=flush)
        except OSError as error:
            self.close()
            raise disk_error(error, self._path, "append to the journal") from error
