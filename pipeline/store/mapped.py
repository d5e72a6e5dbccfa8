"""Chunk files that hold plain values, mapped into memory instead of copied."""

from __future__ import annotations

import math
import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CHECKSUM_BYTES = 4
"""What crc32c appends to the values."""


def mapped_chunk(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any] | None:
    """The values of an uncompressed chunk, read-only, straight from the page cache.

    A private copy of a 16 MB tile costs four times what the system needs to hand out its pages: fresh memory has
    to be cleared and filled. The file's checksum is not looked at: compare the digest of the values.

    Args:
        path: the file; it is never changed in place, only replaced, so that a mapping stays what it is.
        shape: of a whole chunk; files at the edge are padded to it.
        dtype: of the entries.

    Returns:
        None where the file is not of the length that it should have, or the machine is big-endian.

    Raises:
        OSError: the file cannot be opened.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size != nbytes + CHECKSUM_BYTES or not nbytes or sys.byteorder != "little":
            return None
        pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    pages.madvise(mmap.MADV_WILLNEED)
    return np.frombuffer(pages, dtype, math.prod(shape)).reshape(shape)


Identity = tuple[int, int, int]
"""What tells whether a file is still the one that was read: its inode, its size and when it was written, in ns."""

SETTLED_NS = 1_000_000_000
"""A file written less than this ago might be changed again without its time changing: clocks of files tick slowly."""


def identity(path: Path) -> Identity | None:
    """Of a file; None where it is not there, or was written so lately that its time says nothing yet."""
    try:
        found = path.stat()
    except OSError:
        return None
    if abs(time.time_ns() - found.st_mtime_ns) < SETTLED_NS:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def ask_for(path: Path) -> None:
    """Have the system read a file into its cache, without waiting for it; of one that is not there nothing is said."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(descriptor)
