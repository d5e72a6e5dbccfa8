"""Writing files: a crash leaves the old content or the new, and what was written survives a power cut."""

from __future__ import annotations

import os
import uuid
from collections.abc import Buffer
from pathlib import Path

from pipeline.store.place import ObjectPath, Place

# Left behind by a writer that was killed; never read.
PARTIAL = ".partial"


def replace_file(path: Place, *parts: Buffer) -> None:
    """Write a whole file, given in parts: beside it, flushed to disk, then renamed over it, then the directory flushed.

    Missing parent directories are made (and flushed). An object is written in one request, which does as much.

    Raises:
        OSError: as the file system says; the old content is still there, whole.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(parts[0] if len(parts) == 1 else b"".join(parts))
        return
    make_directory(path.parent)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("xb", buffering=0) as file:
            for part in parts:
                write_whole(file.fileno(), part)
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_whole(descriptor: int, data: Buffer) -> None:
    """Write all of it, however many calls the system needs.

    Raises:
        OSError: as the file system says.
    """
    with memoryview(data) as view, view.cast("B") as rest:
        done = 0
        while done < len(rest):
            done += os.write(descriptor, rest[done:])


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each one's entry flushed to disk. Several may do so at once.

    Raises:
        OSError: as the file system says.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory's entries (new names, renames, removals) to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
