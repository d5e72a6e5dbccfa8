"""Segments of a journal as files that grow."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.store.files import make_directory, sync_directory
from pipeline.store.segments import Rank, new_name, rank_of


class SegmentFiles:
    """The segments in a directory. Every method raises OSError when the disk refuses."""

    def __init__(self, path: Path):
        self.path = path

    def sizes(self) -> dict[Rank, int]:
        """Size in bytes of every segment, in rank order; empty when there is no journal yet."""
        sizes: dict[Rank, int] = {}
        try:
            entries = os.scandir(self.path)
        except FileNotFoundError:
            return sizes
        with entries:
            for entry in entries:
                rank = rank_of(entry.name)
                if rank is not None:
                    sizes[rank] = entry.stat().st_size
        return dict(sorted(sizes.items()))

    def read(self, rank: Rank, start: int) -> bytes:
        """What a segment holds from byte ``start`` on."""
        with (self.path / rank[1]).open("rb") as file:
            file.seek(start)
            return file.read()

    def begin(self, epoch: int) -> GrowingFile:
        """A new segment, made at its first line."""
        return GrowingFile(self.path, epoch)


class GrowingFile:
    """A segment being written; closed for good when an append fails."""

    def __init__(self, folder: Path, epoch: int):
        self._folder = folder
        self._epoch = epoch
        self._file: int | None = None
        self._length = 0

    def append(self, data: bytes, *, flush: bool = True) -> None:
        """Append lines; they are on the disk when this returns (without `flush`, with the system, which survives the
        death of this process), and cut off again when it raises OSError."""
        try:
            file = self._open() if self._file is None else self._file
            self._write(file, data)
            if flush:
                os.fsync(file)
        except OSError as error:
            self._take_back(error)
            raise
        self._length += len(data)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        make_directory(self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(self._folder / new_name(self._epoch), flags, 0o666)
        sync_directory(self._folder)
        return self._file

    def _write(self, file: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]

    def _take_back(self, error: OSError) -> None:
        """After a failed flush the kernel may have dropped pages that look written: this segment is not to be trusted
        with more."""
        if self._file is not None:
            try:
                os.ftruncate(self._file, self._length)
                os.fsync(self._file)
            except OSError as second:
                error.add_note(f"taking back the failed append failed too: {second}")
        self.close()
