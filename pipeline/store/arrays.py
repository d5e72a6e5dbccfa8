"""The arrays of a run: written a chunk at a time, read back only as recorded."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pipeline.errors import InputError
from pipeline.plan.tasks import Record
from pipeline.store.digest import digest
from pipeline.store.faults import TileError, TileFault, disk_error
from pipeline.store.files import PARTIAL, sync_directory
from pipeline.store.format import Compression, Spec, create_array, open_array
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout
from pipeline.store.local import DurableStore
from pipeline.store.mapped import Identity, ask_for, identity, mapped_chunk
from pipeline.store.writer import JournalWriter

Key = tuple[int, ...]
Block = np.ndarray[Any, Any]

SCRATCH = "work"
"""Arrays below this name pass values between processes of one stage. They are neither flushed to the disk nor in the
journal: the record that `write`'s caller makes travels by message, and `read_recorded` checks against it."""

PASSING = "passing"
"""Arrays below this name are recorded as all others, so that a killed stage goes on from them, but not flushed to the
disk: they are rewritten too often for that, and removed when their stage is done. After a power cut they may be torn,
which their digests show."""


def worker_name() -> str:
    """``host:pid`` of this process, as records have it."""
    return f"{socket.gethostname()}:{os.getpid()}"


class ArrayStore:
    """The arrays of one run directory; safe to share between threads, cheap to send to another process.

    A chunk is done when its record is in the journal; the caller appends it after ``write`` returned.

    Args:
        directory: the run directory.
        journal: its journal; read on when a record is missed.
        writable: whether anything may be changed.
    """

    def __init__(self, directory: Path | str, journal: Journal, *, writable: bool = False):
        self.directory = Path(directory)
        self.journal = journal
        self.writable = writable
        self._root = RunLayout(self.directory).store
        self._store = DurableStore(self._root, read_only=not writable)
        self._scratch = LocalStore(self._root, read_only=not writable)
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._verified: dict[tuple[str, Key], tuple[Identity, str]] = {}

    def __reduce__(self):
        return (_reopen, (self.directory, self.journal, self.writable))

    # Arrays

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
            self._remove(name)
            create_array(self._home(name), name, spec, attributes or {}, dimensions)
        except OSError as error:
            raise disk_error(error, self._root / name, "create the array") from error
        return True

    def exists(self, name: str) -> bool:
        """Whether there is an array of that name."""
        return (self._root / name / "zarr.json").is_file()

    def array(self, name: str) -> zarr.Array[Any]:
        """The Zarr array, for its shape, chunks, dtype and attributes; values go through ``read``.

        Raises:
            InputError: there is none, or its metadata is damaged.
        """
        array = self._arrays.get(name)
        if array is None:
            try:
                array = self._arrays[name] = open_array(self._home(name), name)
            except Exception as error:
                found = "its metadata is damaged" if self.exists(name) else "there is no such array"
                raise InputError(
                    f"{self._root / name}: {found} ({type(error).__name__}: {error})",
                    hint=f"ntk status {self.directory} tells what is there; ntk run computes what is not",
                ) from error
        return array

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

    # Chunks

    def write(self, name: str, key: Key, block: Block) -> tuple[str, int]:
        """Store one chunk; it is on the disk when this returns. The record is the caller's to append.

        Args:
            name: array.
            key: chunk indices.
            block: values of the chunk's valid shape (cut off at the edge), of the array's dtype.

        Returns:
            Digest of the values, and the bytes that they take in the store.

        Raises:
            InputError: the disk refuses.
            ValueError: the block is of another shape or dtype.
        """
        array = self.array(name)
        shape = tuple(part.stop - part.start for part in self.region(name, key))
        if block.shape != shape or block.dtype != array.dtype:
            raise ValueError(
                f"{name}, chunk {key}: expected {array.dtype} {shape}, got {block.dtype} {block.shape}"
            )
        block = np.ascontiguousarray(block).reshape(shape)
        try:
            array.set_block_selection(key, block)
            nbytes = self.chunk_file(name, key).stat().st_size
        except OSError as error:
            raise disk_error(error, self.chunk_file(name, key), "write the tile") from error
        return digest(block), nbytes

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

    def expect(self, name: str, key: Key) -> None:
        """Have the system read a chunk's file while the caller does something else; no more than a hint."""
        ask_for(self.chunk_file(name, key))

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
            nbytes=self.chunk_file(name, key).stat().st_size,
            worker=worker_name(),
            started=time.time(),
            note={"adopted": True},
        )

    def names(self) -> list[str]:
        """Every array in the store that has chunks, sorted; scratch is not among them."""
        folders = (file.parent for file in self._root.rglob("zarr.json"))
        names = (str(folder.relative_to(self._root)) for folder in folders if (folder / "c").is_dir())
        return sorted(name for name in names if not name.startswith(f"{SCRATCH}/"))

    def unrecorded(self, name: str) -> list[Key]:
        """Chunks whose file is there but of which the journal has no record: candidates for ``adopt``."""
        root = self._root / name / "c"
        done = self.journal.done([name])
        orphans = []
        for directory, _, files in os.walk(root):
            above = Path(directory).relative_to(root).parts
            # What is not numbers all the way is litter: see ``sweep``.
            for parts in ((*above, file) for file in files):
                if all(map(str.isdecimal, parts)) and (name, key := tuple(map(int, parts))) not in done:
                    orphans.append(key)
        return sorted(orphans)

    def remove(self, name: str, writer: JournalWriter) -> None:
        """Remove an array; first its records, so that none ever points at nothing.

        Raises:
            InputError: the disk refuses.
        """
        writer.invalidate(name)
        self._arrays.pop(name, None)
        try:
            self._remove(name)
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
            path = self.chunk_file(name, key)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, path, "remove the tile") from error
        if keys:
            writer.invalidate(name, keys)

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

    def sweep(self) -> int:
        """Remove the unfinished files of killed writers, and scratch; under the ``run`` lease only. Returns the number
        of files that were unfinished.

        Raises:
            InputError: the disk refuses.
        """
        leftovers = list(self._root.rglob(f"*{PARTIAL}"))
        for path in leftovers:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, path, "remove an unfinished file") from error
        self.remove_scratch()
        return len(leftovers)

    def remove_scratch(self) -> None:
        """Remove every scratch array.

        Raises:
            InputError: the disk refuses.
        """
        path = self._root / SCRATCH
        try:
            if path.is_dir():
                shutil.rmtree(path)
        except OSError as error:
            raise disk_error(error, path, "remove scratch arrays") from error
        for name in [name for name in self._arrays if name.startswith(f"{SCRATCH}/")]:
            del self._arrays[name]

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

    # Inside

    def chunk_file(self, name: str, key: Key) -> Path:
        """The file of a chunk, there or not."""
        return self._root / name / self.array(name).metadata.encode_chunk_key(key)

    def _identity(self, name: str, key: Key) -> Identity | None:
        try:
            return identity(self.chunk_file(name, key))
        except InputError:  # `_checked` finds the same and says what it is.
            return None

    def _home(self, name: str) -> LocalStore:
        return self._scratch if name.split("/", 1)[0] in (SCRATCH, PASSING) else self._store

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
            if array.attrs["compression"] == "none":
                whole = mapped_chunk(self.chunk_file(name, key), array.chunks, array.dtype)
                if whole is not None:
                    return whole[tuple(slice(part.stop - part.start) for part in region)]
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
        path = self.chunk_file(name, key)
        if not path.is_file():
            return TileFault(name, key, f"its file {path} is missing")
        try:
            return np.asarray(array.get_block_selection(key))
        except Exception as error:
            # Whatever a damaged file makes the codecs raise, the tile is not to be used.
            size = path.stat().st_size if path.is_file() else 0
            return TileFault(
                name, key, f"its file {path} ({size} bytes) is damaged ({type(error).__name__}: {error})"
            )

    def _found(self, name: str) -> Spec | None:
        try:
            return Spec.of(open_array(self._home(name), name))
        except Exception:
            # Nothing there, or metadata that cannot be read: either way it is not the array that is wanted.
            return None

    def _remove(self, name: str) -> None:
        """Remove an array, its metadata last: killed halfway, it leaves one that is recognised as another."""
        path = self._root / name
        if not path.is_dir():
            return
        metadata = path / "zarr.json"
        for child in path.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
            elif child != metadata:
                child.unlink()
        sync_directory(path)
        metadata.unlink(missing_ok=True)


def _reopen(directory: Path, journal: Journal, writable: bool) -> ArrayStore:
    return ArrayStore(directory, journal, writable=writable)
