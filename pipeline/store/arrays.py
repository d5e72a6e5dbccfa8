"""The arrays of a run: written a chunk at a time, read back only as recorded."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plan.tasks import Record
from pipeline.store.digest import digest
from pipeline.store.faults import ObjectStoreError, TileFault, disk_error
from pipeline.store.files import replace_file
from pipeline.store.format import Compression, Spec, create_array, create_group, open_array
from pipeline.store.journal import Journal
from pipeline.store.mapped import plain_chunk
from pipeline.store.place import Place
from pipeline.store.reading import ArrayReader, Block, Key, group_key, is_plain
from pipeline.store.recycled import write_over
from pipeline.store.scratch import SCRATCH, is_scratch
from pipeline.store.writer import JournalWriter


def worker_name() -> str:
    """``host:pid`` of this process, as records have it."""
    return f"{socket.gethostname()}:{os.getpid()}"


class ArrayStore(ArrayReader):
    """The arrays of one run directory; safe to share between threads, cheap to send to another process.

    A chunk is done when its record is in the journal; the caller appends it after ``write`` returned.

    Args:
        directory: the run directory.
        journal: its journal; read on when a record is missed.
        writable: whether anything may be changed.
    """

    def __reduce__(self):
        return (_reopen, (self.directory, self.journal, self.writable))

    def create(
        self,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: str | np.dtype[Any] | type,
        *,
        compression: Compression = "none",
        fingerprint: str,
        attributes: Mapping[str, Any] | None = None,
        dimensions: tuple[str, ...] | None = None,
        writer: JournalWriter | None = None,
    ) -> bool:
        """Make an array, or keep the one of that name if layout and fingerprint are equal.

        An array that differs is removed, its records invalidated first: killed in between, it leaves chunks
        without records under a wrong fingerprint, which the next ``create`` removes.

        Args:
            name: as ``gram/ntk``.
            shape: of the array.
            chunks: shape of a whole chunk.
            dtype: of its entries.
            compression: ``lz4`` or ``zstd`` (blosc, bit shuffle, lossless), or ``none``.
            fingerprint: of everything that the values depend on.
            attributes: what else to say about the array, JSON values; not compared.
            dimensions: names of its axes, for xarray; not compared.
            writer: journal writer for the invalidation, needed only when the array has records.

        Returns:
            Whether the array is new and empty.

        Raises:
            InputError: the disk refuses.
            ValueError: the array must go, has records, and no writer was given.
        """
        spec = Spec(tuple(shape), tuple(chunks), np.dtype(dtype).name, compression, fingerprint)
        self._arrays.pop(name, None)
        if self._found(name) == spec:
            return False
        self.journal.refresh()
        if self.journal.records(name):
            if writer is None:
                raise ValueError(f"{name} has records that must be invalidated: create() needs a writer")
            writer.invalidate(name)
            self.journal.refresh()
        try:
            self._tree.remove_array(name)
            create_array(self._tree.zarr(name), name, spec, attributes or {}, dimensions)
        except OSError as error:
            raise disk_error(error, self._root / name, "create the array") from error
        return True

    @property
    def reuses_files(self) -> bool:
        """Whether chunks can be written over the files of others: on a disk, not in a bucket."""
        return isinstance(self._root, Path)

    def write(self, name: str, key: Key, block: Block, *, spent: Key | None = None) -> tuple[str, int]:
        """Store one chunk; it is on the disk when this returns. The record is the caller's to append.

        Args:
            name: array.
            key: chunk indices.
            block: values of the chunk's valid shape (cut off at the edge), of the array's dtype.
            spent: of an array below `PASSING`, another chunk that is not read any more: its file is used up where files
                can be (`reuses_files`).

        Returns:
            Digest of the values, and the bytes that they take in the store.

        Raises:
            InputError: the disk refuses.
            ValueError: the block is of another shape or dtype, or the store was opened read-only.
        """
        if not self.writable:
            raise ValueError(f"{name}: the store was opened read-only")
        array = self.array(name)
        shape = tuple(part.stop - part.start for part in self.region(name, key))
        if block.shape != shape or block.dtype != array.dtype:
            raise ValueError(
                f"{name}, chunk {key}: expected {array.dtype} {shape}, got {block.dtype} {block.shape}"
            )
        block = np.ascontiguousarray(block).reshape(shape)
        try:
            new, old = self.chunk_file(name, key), None if spent is None else self.chunk_file(name, spent)
            if isinstance(new, Path) and is_plain(array):
                if isinstance(old, Path):
                    nbytes = write_over(new, old, block, array.chunks)
                else:
                    replace_file(new, *plain_chunk(block, array.chunks, array.fill_value))
                    nbytes = self._size(name, key)
            else:
                array.set_block_selection(key, block)
                nbytes = self._size(name, key)
        except OSError as error:
            raise disk_error(error, self.chunk_file(name, key), "write the tile") from error
        return digest(block), nbytes

    def adopt(self, name: str, key: Key) -> Record | None:
        """A record for a chunk that has none, if its checksum holds and all its values are finite.

        Such a chunk is what a worker left that was killed between the write and the record.
        """
        block = self._decode(name, key)
        if isinstance(block, TileFault) or not np.isfinite(block).all():
            return None
        return Record(
            name,
            key,
            digest(block),
            block.shape,
            block.dtype.name,
            seconds=0.0,
            nbytes=self._size(name, key),
            worker=worker_name(),
            started=time.time(),
            note={"adopted": True},
        )

    def mend_group(self, name: str) -> None:
        """Write the metadata of a group anew, "" for the root.

        Raises:
            InputError: the disk refuses.
        """
        try:
            self._tree.remove(group_key(name))
            create_group(self._tree.zarr(name), name)
        except OSError as error:
            raise disk_error(error, self._root / group_key(name), "write the group") from error

    def remove(self, name: str, writer: JournalWriter) -> None:
        """Remove an array; first its records, so that none ever points at nothing.

        Raises:
            InputError: the disk refuses.
        """
        writer.invalidate(name)
        self._arrays.pop(name, None)
        try:
            self._tree.remove_array(name)
        except OSError as error:
            raise disk_error(error, self._root / name, "remove the array") from error

    def discard(self, name: str, keys: Iterable[Key], writer: JournalWriter) -> None:
        """Remove chunks, then what was recorded of them, so that they are computed again.

        In this order, because a wrong tile that has merely lost its record might be adopted.

        Raises:
            InputError: the disk refuses.
        """
        keys = list(keys)
        for key in keys:
            try:
                self._tree.remove(self._key(name, key))
            except OSError as error:
                raise disk_error(error, self.chunk_file(name, key), "remove the tile") from error
        if keys:
            writer.invalidate(name, keys)

    def sweep(self) -> int:
        """Remove the unfinished files of killed writers, and scratch; under the ``run`` lease only. Returns the number
        of files that were unfinished.

        Raises:
            InputError: the disk refuses.
        """
        leftovers = self._tree.sweep()
        self.remove_scratch()
        return leftovers

    def remove_scratch(self) -> None:
        """Remove every scratch array.

        Raises:
            InputError: the disk refuses.
        """
        try:
            self._tree.remove_below(SCRATCH)
        except OSError as error:
            raise disk_error(error, self._root / SCRATCH, "remove scratch arrays") from error
        for name in [name for name in self._arrays if is_scratch(name)]:
            del self._arrays[name]

    def _found(self, name: str) -> Spec | None:
        try:
            return Spec.of(open_array(self._tree.zarr(name), name))
        except ObjectStoreError:
            raise
        except Exception:
            # Nothing there, or metadata that cannot be read: either way it is not the array that is wanted.
            return None


def _reopen(directory: Place, journal: Journal, writable: bool) -> ArrayStore:
    return ArrayStore(directory, journal, writable=writable)
