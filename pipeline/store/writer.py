"""The writing end of the journal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.store.faults import disk_error
from pipeline.store.files import make_directory, sync_directory
from pipeline.store.layout import RunLayout
from pipeline.store.segments import encode_lines, new_name, segment_sizes


class JournalWriter:
    """Appends entries to a segment of its own, made at the first append. Made by ``Journal.writer``.

    When an append returns, its entries are on the disk. When it raises, they are cut off again (and half a
    line would fail its checksum), and the writer is closed.

    Args:
        directory: the run directory.
        guard: called before each append; raises when this process may no longer write.
    """

    def __init__(self, directory: Path, guard: Callable[[], None] | None = None):
        self._path = RunLayout(directory).journal
        self._guard = guard
        self._file: int | None = None
        self._length = 0
        self._closed = False
        try:
            # Fixed now, not at the first append: whoever takes over from a sleeping process ranks above it.
            self._epoch = 1 + max((epoch for epoch, _ in segment_sizes(self._path)), default=0)
        except OSError as error:
            raise disk_error(error, self._path, "read the journal") from error

    def __enter__(self) -> JournalWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, records: Iterable[Record]) -> None:
        """Append records, flushed to disk once for all of them.

        Raises:
            InputError: the disk refuses (path, cause and remedy in the message), or the guard does.
            ValueError: the writer is closed.
        """
        self._append([record.to_json() for record in records])

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

    def close(self) -> None:
        """Close the segment; nothing can be appended after that."""
        self._closed = True
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, entries: list[dict[str, Any]]) -> None:
        if self._closed:
            raise ValueError(f"{self._path}: the journal writer is closed")
        if not entries:
            return
        if self._guard is not None:
            self._guard()
        data = encode_lines(entries)
        try:
            file = self._open() if self._file is None else self._file
            self._write(file, data)
        except OSError as error:
            raise self._give_up(error) from error
        self._length += len(data)

    def _open(self) -> int:
        make_directory(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(self._path / new_name(self._epoch), flags, 0o666)
        sync_directory(self._path)
        return self._file

    def _write(self, file: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)

    def _give_up(self, error: OSError) -> InputError:
        """Take back what part of the append reached the file, and close: after a failed flush the kernel may
        have dropped pages that look written, so that this segment is not to be trusted with more."""
        if self._file is not None:
            try:
                os.ftruncate(self._file, self._length)
                os.fsync(self._file)
            except OSError as second:
                error.add_note(f"taking back the failed append failed too: {second}")
        self.close()
        return disk_error(error, self._path, "append to the journal")
