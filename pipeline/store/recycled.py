"""Chunk files written into the pages of files that nobody needs any more.

A new file of 2 MB took ext4 on a virtual machine 4 to 7 ms, nearly all of it spent on finding and mapping pages;
writing over the pages of an old one took 0.3 ms. An array that is rewritten once a step, of which only the last step
counts, is therefore kept in the same files under changing names.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

import numpy as np

from pipeline.store.files import PARTIAL, write_whole
from pipeline.store.mapped import plain_chunk


def write_over(path: Path, spent: Path, values: np.ndarray, shape: tuple[int, ...]) -> int:
    """Write an uncompressed chunk, its checksum last, and give it its name when it is whole; not flushed to the disk.

    Args:
        path: of the chunk.
        spent: a file to be used up, if it is there. Whoever still has it mapped sees it change.
        values: little-endian, C-contiguous.
        shape: of a whole chunk; `values` at an edge are padded with zeros.

    Returns:
        Bytes of the file.

    Raises:
        OSError: as the file system says; the chunk then has no file.
    """
    parts = plain_chunk(values, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with contextlib.suppress(FileNotFoundError):
        spent.rename(partial)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            for part in parts:
                write_whole(descriptor, part)
            size = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return size


def read_into(path: Path, out: np.ndarray) -> bool:
    """Read the values of an uncompressed chunk into a contiguous array of its shape; whether the file was long enough.

    Raises:
        OSError: the file cannot be opened.
    """
    rest = memoryview(out).cast("B")
    with path.open("rb", buffering=0) as file:
        while rest:
            count = file.readinto(rest)
            if not count:
                return False
            rest = rest[count:]
    return True
