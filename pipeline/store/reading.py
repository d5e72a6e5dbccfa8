"""Reading the arrays of a run: a chunk is what its record says it is, or an error."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr

from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.store.digest import digest
from pipeline.store.faults import ObjectStoreError, TileError, TileFault
from pipeline.store.format import open_array
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout
from pipeline.store.mapped import Identity, plain_values
from pipeline.store.place import Place, place
from pipeline.store.recycled import read_into
from pipeline.store.scratch import is_scratch
from pipeline.store.tree import tree_at

Key = tuple[int, ...]
Block = np.ndarray[Any, Any]


class ArrayReader:
    """What is read of the arrays of one run directory; safe to share between threads.

    Args:
        directory: the run directory.
        journal: its journal; read on when a record is missed.
        writable: whether Zarr may change anything.
    """

    def __init__(self, directory: Place | str, journal: Journal, *, writable: bool = False):
        self.directory = place(directory)
        self.journal = journal
        self.writable = writable
        self._root = RunLayout(self.directory).store
        self._tree = tree_at(self._root, writable=writable)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._verified: dict[tuple[str, Key], tuple[Identity, str]] = {}

    def exists(self, name: str) -> bool:
        """Whether there is an array of that name."""
        return self._tree.size(f"{name}/zarr.json") is not None

    def array(self, name: str) -> zarr.Array[Any]:
        """The Zarr array, for its shape, chunks, dtype and attributes; values go through ``read``.

        Raises:
            InputError: there is none, or its metadata is damaged.
        """
        array = self._arrays.get(name)
        if array is None:
            try:
                array = self._arrays[name] = open_array(self._tree.zarr(name), name)
            except ObjectStoreError:
                raise  # nothing is known of it
            except Exception as error:
                found = "its metadata is damaged" if self.exists(name) else "there is no such array"
                raise InputError(
                    f"{self._root / name}: {found} ({type(error).__name__}: {error})",
                    hint=f"ntk status {self.directory} tells what is there; ntk run computes what is not",
                ) from error
        return array

    def is_mapped(self, name: str) -> bool:
        """Whether `view` gives pages of an array's files, which the system keeps as long as it has room."""
        return isinstance(self._root, Path) and is_plain(self.array(name))

    def forget(self, name: str) -> None:
        """Read the array's metadata anew the next time."""
        self._arrays.pop(name, None)

    def keys(self, name: str) -> Iterator[Key]:
        """Every chunk of the array's grid (of a Gram matrix, both triangles)."""
        return itertools.product(*map(range, self.array(name).cdata_shape))

    def region(self, name: str, key: Key) -> tuple[slice, ...]:
        """The part of the array that a chunk covers, cut off at the edge.

        Raises:
            IndexError: the array has no such chunk.
        """
        array = self.array(name)
        if len(key) != array.ndim or not all(0 <= k < n for k, n in zip(key, array.cdata_shape, strict=True)):
            raise IndexError(f"{name} has {array.cdata_shape} chunks, there is no chunk {key}")
        return tuple(
            slice(index * size, min((index + 1) * size, extent))
            for index, size, extent in zip(key, array.chunks, array.shape, strict=True)
        )

    def names(self) -> list[str]:
        """Every array in the store that has chunks, sorted; scratch is not among them."""
        return [name for name in self._tree.arrays() if not is_scratch(name)]

    def damaged_groups(self) -> list[str]:
        """Groups above the recorded arrays that are there, "" for the root, whose metadata is missing or unreadable:
        Zarr finds the arrays by it, and nothing else needs it."""
        here = (name for name in self.journal.arrays() if self.exists(name))
        parents = {str(parent) for name in here for parent in PurePosixPath(name).parents}
        return [
            group for group in sorted(name.removeprefix(".") for name in parents) if not self._is_group(group)
        ]

    def _is_group(self, name: str) -> bool:
        try:
            found = json.loads(bytes(self._tree.contents(group_key(name))))
        except (FileNotFoundError, ValueError):
            return False
        return isinstance(found, dict) and (found.get("zarr_format"), found.get("node_type")) == (3, "group")

    def unrecorded(self, name: str) -> list[Key]:
        """Chunks whose file is there but of which the journal has no record: candidates for ``adopt``."""
        done = self.journal.done([name])
        # What is not numbers all the way is litter: see ``sweep``.
        found = (parts for parts in self._tree.chunks(name) if all(map(str.isdecimal, parts)))
        orphans = [key for parts in found if (name, key := tuple(map(int, parts))) not in done]
        return sorted(orphans)

    def read(self, name: str, key: Key) -> Block:
        """One chunk, of its valid shape, exactly as recorded; never a fill value.

        Raises:
            TileError: it has no record; or its file, or the array's metadata, is missing or damaged; or it holds
                other values than recorded.
        """
        found = self._checked(name, key)
        if isinstance(found, TileFault):
            raise TileError.of(found, self.directory)
        return found

    def view(self, name: str, key: Key) -> Block:
        """As `read`, but read-only, and without a copy where the array is not compressed.

        The values are held against their digest at the first view in this process, and again when the record or the
        file (inode, size, time of writing) is another: an iteration that reads a matrix a hundred times hashes it once.
        What comes over a network is held against it every time.

        Raises:
            TileError: as `read`.
        """
        file, record = self._identity(name, key), self.journal.latest(name, key)
        known = (
            file is not None
            and record is not None
            and self._verified.get((name, key)) == (file, record.digest)
        )
        found = self._mapped(name, key) if known else self._checked(name, key, self._mapped)
        if isinstance(found, TileFault):
            raise TileError.of(found, self.directory)
        record = self.journal.latest(name, key)
        if file is not None and record is not None:
            self._verified[name, key] = (file, record.digest)
        return found

    def read_into(self, name: str, key: Key, out: Block) -> None:
        """As `read`, into an array of the chunk's valid shape.

        Raises:
            TileError: as `read`.
        """

        def copied(name: str, key: Key) -> Block | TileFault:
            array, file = self.array(name), self.chunk_file(name, key)
            whole = out.shape == array.chunks and out.dtype == array.dtype and is_plain(array)
            with contextlib.suppress(OSError):
                if whole and isinstance(file, Path) and read_into(file, out):
                    return out
            return self._mapped(name, key)

        found = self._checked(name, key, copied)
        if isinstance(found, TileFault):
            raise TileError.of(found, self.directory)
        if found is not out:
            out[...] = found

    def expect(self, name: str, key: Key) -> None:
        """Have the system read a chunk's file while the caller does something else; no more than a hint."""
        self._tree.expect(self._key(name, key))

    def read_recorded(self, record: Record) -> Block:
        """One chunk, read-only, as this record has it, whatever the journal says.

        Raises:
            TileError: its file is missing or damaged, or holds other values.
        """
        found = self._mapped(record.array, record.key)
        if not isinstance(found, TileFault) and digest(found) != record.digest:
            found = TileFault(
                record.array, record.key, "its values are not those that were written (digests differ)"
            )
        if isinstance(found, TileFault):
            raise TileError.of(found, self.directory)
        return found

    def read_all(self, name: str) -> Block:
        """A whole array that fits into memory, every chunk of it checked.

        Raises:
            TileError: as ``read``.
            InputError: there is no such array, or its metadata is damaged.
        """
        array = self.array(name)
        values = np.empty(array.shape, array.dtype)
        for key in self.keys(name):
            values[self.region(name, key)] = self.read(name, key)
        return values

    def verify(
        self, names: Iterable[str] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> list[TileFault]:
        """Read every recorded chunk and compare it with its record.

        Args:
            names: arrays; all that have records by default.
            progress: called with (chunks checked, chunks in all).

        Returns:
            What is wrong, in order of array and chunk; empty when all is well.
        """
        self.journal.refresh()
        names = self.journal.arrays() if names is None else names
        chunks = [(name, key) for name in names for key in sorted(self.journal.records(name))]
        faults = []
        for count, (name, key) in enumerate(chunks, start=1):
            found = self._checked(name, key)
            if isinstance(found, TileFault):
                faults.append(found)
            if progress is not None:
                progress(count, len(chunks))
        return faults

    def chunk_file(self, name: str, key: Key) -> Place:
        """The file or object of a chunk, there or not."""
        return self._root / self._key(name, key)

    def _key(self, name: str, key: Key) -> str:
        return f"{name}/{self.array(name).metadata.encode_chunk_key(key)}"

    def _identity(self, name: str, key: Key) -> Identity | None:
        try:
            return self._tree.identity(self._key(name, key))
        except InputError:  # `_checked` finds the same and says what it is.
            return None

    def _size(self, name: str, key: Key) -> int:
        """Bytes that a chunk takes in the store; it must be there."""
        size = self._tree.size(self._key(name, key))
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return size

    def _checked(
        self, name: str, key: Key, decode: Callable[[str, Key], Block | TileFault] | None = None
    ) -> Block | TileFault:
        if self.journal.latest(name, key) is None:
            self.journal.refresh()
            if self.journal.latest(name, key) is None:
                return TileFault(name, key, "it has no record in the journal")
        block = (decode or self._decode)(name, key)
        if isinstance(block, TileFault):
            return block
        found = digest(block)
        if not self._is_recorded(name, key, found):
            self.journal.refresh()  # It may have been computed again since.
            if not self._is_recorded(name, key, found):
                return TileFault(name, key, "its values are not those that were recorded (digests differ)")
        return block

    def _is_recorded(self, name: str, key: Key, found: str) -> bool:
        record = self.journal.latest(name, key)
        return record is not None and record.digest == found

    def _mapped(self, name: str, key: Key) -> Block | TileFault:
        """The values in a chunk's file, unchecked where they can be mapped; else as `_decode`."""
        try:
            array, region = self.array(name), self.region(name, key)
            if is_plain(array):
                whole = plain_values(self._tree.contents(self._key(name, key)), array.chunks, array.dtype)
                if whole is not None:
                    return whole[tuple(slice(part.stop - part.start) for part in region)]
        except ObjectStoreError:
            raise
        except (InputError, IndexError, OSError):
            pass  # `_decode` finds the same and says what it is.
        block = self._decode(name, key)
        if not isinstance(block, TileFault):
            block.flags.writeable = False
        return block

    def _decode(self, name: str, key: Key) -> Block | TileFault:
        """The values in a chunk's file if its checksum holds."""
        try:
            array = self.array(name)
            self.region(name, key)
        except InputError as error:
            return TileFault(name, key, error.message)
        except IndexError as error:
            return TileFault(name, key, str(error))
        try:
            return np.asarray(array.get_block_selection(key))
        except ObjectStoreError:
            raise  # a store that cannot be asked says nothing about the tile
        except Exception as error:
            # Whatever a damaged file makes the codecs raise, the tile is not to be used.
            path, size = self.chunk_file(name, key), self._tree.size(self._key(name, key))
            if size is None:
                return TileFault(name, key, f"its file {path} is missing")
            return TileFault(
                name, key, f"its file {path} ({size} bytes) is damaged ({type(error).__name__}: {error})"
            )


def group_key(name: str) -> str:
    """Where the metadata of a group are, "" for the root."""
    return f"{name}/zarr.json".lstrip("/")


def is_plain(array: zarr.Array[Any]) -> bool:
    """Whether the files of an array hold its values as they lie in memory."""
    return array.attrs["compression"] == "none" and sys.byteorder == "little"
