"""Segments of a journal as objects, which cannot grow: each append writes the segment anew under a name of its own.

The object ``{segment}@{bytes}.jsonl`` is the segment as it was when it had so many bytes: complete when it appears
(``If-None-Match: *``), never changed, a beginning of every longer one. The longest counts; the one before it is
removed, and one that comes late, from a request that was thought lost, is shorter and says nothing new. A segment that
has reached ``BLOCK_BYTES`` is followed by a new one of the same writer, so that an append stays cheap and a journal is
read in few requests.
"""

from __future__ import annotations

import re
from contextlib import suppress

from pipeline.store.place import ObjectPath
from pipeline.store.segments import SUFFIX, Rank, new_name, rank_of

BLOCK_BYTES = 1 << 17
"""About 500 records."""

_VERSION = re.compile(rf"(.+)@(\d+){re.escape(SUFFIX)}")
_LOOKS = 10
"""So often a reader looks again when what it wanted to read has been replaced meanwhile."""


class SegmentObjects:
    """The segments below a prefix. Every method raises OSError when the store refuses."""

    def __init__(self, path: ObjectPath):
        self.path = path
        self._sizes: dict[Rank, int] = {}

    def sizes(self) -> dict[Rank, int]:
        """Size in bytes of every segment, in rank order."""
        sizes: dict[Rank, int] = {}
        for name in self.path.sizes():
            version = _VERSION.fullmatch(name)
            rank = None if version is None else rank_of(version[1] + SUFFIX)
            if version is not None and rank is not None:
                sizes[rank] = max(sizes.get(rank, 0), int(version[2]))
        self._sizes = dict(sorted(sizes.items()))
        return self._sizes

    def read(self, rank: Rank, start: int) -> bytes:
        """What a segment holds from byte ``start`` on."""
        for _ in range(_LOOKS):
            size = self._sizes[rank]
            if size <= start:
                return b""
            try:
                return (self.path / _name(rank[1].removesuffix(SUFFIX), size)).read_bytes(start)
            except FileNotFoundError:
                if self.sizes().get(rank, 0) <= size:
                    raise
        raise FileNotFoundError(f"{self.path / rank[1]}: replaced again and again while it was read")

    def begin(self, epoch: int) -> GrowingObject:
        """A new segment, made at its first line."""
        return GrowingObject(self.path, epoch)


class GrowingObject:
    """A segment being written."""

    def __init__(self, folder: ObjectPath, epoch: int):
        self._folder = folder
        self._stem = new_name(epoch).removesuffix(SUFFIX)
        self._block = 0
        self._content = b""

    def append(self, data: bytes, *, flush: bool = True) -> None:
        """Append lines; they are in the store when this returns, `flush` or not. When it raises OSError they may be
        there all the same, as after an answer that was lost; what they say is true."""
        del flush
        if len(self._content) >= BLOCK_BYTES:
            self._block, self._content = self._block + 1, b""
        before, content = len(self._content), self._content + data
        # False means that an earlier attempt of this call got through: nobody else has this name.
        self._version(len(content)).create(content)
        self._content = content
        if before:
            with suppress(OSError):  # litter, and no more
                self._version(before).unlink()

    def close(self) -> None:
        """Nothing is kept open."""

    def _version(self, size: int) -> ObjectPath:
        return self._folder / _name(f"{self._stem}-{self._block:06d}", size)


def _name(stem: str, size: int) -> str:
    return f"{stem}@{size}{SUFFIX}"
