"""Chunks that hold plain values: written from memory, and taken as they lie in the page cache or came from the network,
without a copy."""

from __future__ import annotations

import math
import mmap
import os
import struct
import sys
import time
from collections.abc import Buffer
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

CHECKSUM_BYTES = 4
"""What crc32c appends to the values."""


def mapped(path: Path) -> Buffer:
    """A file's bytes, read-only, straight from the page cache.

    A private copy of a 16 MB tile costs four times what the system needs to hand out its pages: fresh memory has
    to be cleared and filled.

    Args:
        path: the file; it is never changed in place, only replaced, so that a mapping stays what it is.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if not size:
            return b""
        pages = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    pages.madvise(mmap.MADV_WILLNEED)
    return pages


def plain_values(
    contents: Buffer, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any] | None:
    """The values of an uncompressed chunk without a copy, read-only. The checksum behind them is not looked at: compare
    the digest of the values.

    Args:
        contents: of the chunk's file or object.
        shape: of a whole chunk; files at the edge are padded to it.
        dtype: of the entries.

    Returns:
        None where there are not as many bytes as there should be, or the machine is big-endian.
    """
    count = math.prod(shape)
    with memoryview(contents) as view:
        size = view.nbytes
    if size != count * dtype.itemsize + CHECKSUM_BYTES or not count or sys.byteorder != "little":
        return None
    values = np.frombuffer(contents, dtype, count)
    # What came over a network may begin at any address.
    values = np.require(values, requirements="A").reshape(shape)
    values.flags.writeable = False
    return values


def plain_chunk(values: np.ndarray[Any, Any], shape: tuple[int, ...], fill: Any = 0) -> tuple[Buffer, bytes]:
    """The two parts of an uncompressed chunk, the values and their checksum, as Zarr's codecs ``bytes`` and ``crc32c``
    would write them, without copies.

    Args:
        values: little-endian, C-contiguous.
        shape: of a whole chunk; `values` at an edge are padded with `fill`.
    """
    if values.shape != shape:
        whole = np.full(shape, fill, values.dtype)
        whole[tuple(map(slice, values.shape))] = values
        values = whole
    fixed = values.view()
    fixed.flags.writeable = False
    # google_crc32c takes what it cannot change: bytes, or an array that is read-only.
    return fixed, struct.pack("<I", google_crc32c.value(fixed))  # pyright: ignore[reportArgumentType]


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
