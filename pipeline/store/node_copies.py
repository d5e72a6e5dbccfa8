"""Copies of chunks on a disk of this node, made once for all processes on it: what many workers read, the store sends
to a node one time.

A copy is named by the digest of its values, so that one of other values is never taken for it, and held against that
digest before a process uses it. Copies of a run live in a folder of its own, on which each process that uses them holds
a lock. The last one to leave removes the folder; a folder that nobody holds any more, because all were killed, is
removed by the next process of this user that stages anything on the node, or used again by its own run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.plan.tasks import Record
from pipeline.store.digest import digest
from pipeline.store.files import PARTIAL, write_whole
from pipeline.store.mapped import Identity, identity, mapped, plain_chunk, plain_values
from pipeline.store.place import Place
from pipeline.store.reading import ArrayReader, Block, Key

FOLDER = "ntk-inputs"
"""What the folder in a node's scratch directory is called, with the number of the user behind it."""

_HELD = ".held"
_COPYING = ".copying"


class NodeCopies:
    """Copies of the chunks of one run; safe to share between threads.

    A scratch directory that cannot be used costs the copies and not the run: that is said once on standard error, and
    everything is read from the store from then on.

    Args:
        scratch: directory on a disk of this node; made where it is not there.
        directory: the run directory.
    """

    def __init__(self, scratch: Path, directory: Place | str):
        self._scratch = scratch
        self._home = scratch / f"{FOLDER}-{os.geteuid()}"
        self._folder = self._home / hashlib.sha256(str(directory).encode()).hexdigest()[:16]
        self._held: int | None = None
        self._given_up = False
        self._verified: dict[Path, Identity] = {}
        self._lock = threading.Lock()

    def view(self, store: ArrayReader, name: str, key: Key) -> Block:
        """As `ArrayReader.view`, of a copy on this node, which is made where it is missing.

        Raises:
            TileError: as there.
        """
        with self._lock, contextlib.ExitStack() as stack:
            record = _recorded(store, name, key)
            if record is None or self._given_up:
                return store.view(name, key)
            path = self._folder / record.digest
            try:
                self._enter()
                if (copy := self._checked(path, record)) is not None:
                    return copy
                # Whoever comes second waits here, and finds what the first one made.
                stack.enter_context(_alone(path.with_suffix(_COPYING)))
                if (copy := self._checked(path, record)) is not None:
                    return copy
            except OSError as error:
                self._give_up(error)
                return store.view(name, key)
            values = store.view(name, key)
            if (latest := _recorded(store, name, key)) is None or latest.digest != record.digest:
                return values  # it was written anew meanwhile
            try:
                _write(path, values)
                copy = self._checked(path, record)
            except OSError as error:
                self._give_up(error)
                return values
            return values if copy is None else copy

    def leave(self) -> None:
        """This process needs no copies any more; the last one removes them."""
        with self._lock:
            self._given_up = True
            if self._held is None:
                return
            with contextlib.suppress(OSError):
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(self._folder)
            os.close(self._held)
            self._held = None

    def _enter(self) -> None:
        """Hold this run's folder, and remove those that nobody holds."""
        if self._held is not None:
            return
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            # Somebody else could change what lies there after it was checked.
            raise OSError(errno.EPERM, "is not a directory of this user's alone", str(self._home))
        self._held = _hold(self._folder.with_suffix(_HELD), fcntl.LOCK_SH)
        self._folder.mkdir(exist_ok=True)
        for file in self._home.glob(f"*{_HELD}"):
            if file.stem != self._folder.name:
                with contextlib.suppress(OSError), _alone(file, fcntl.LOCK_NB):
                    self._remove(file.with_suffix(""))

    def _remove(self, folder: Path) -> None:
        """Remove a run's folder, whose lock is held alone, and then the lock's file."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(_HELD).unlink(missing_ok=True)

    def _checked(self, path: Path, record: Record) -> Block | None:
        """A copy that is there and is what the record says; one that is not is removed."""
        try:
            contents, file = mapped(path), identity(path)
        except FileNotFoundError:
            return None
        values = plain_values(contents, record.shape, np.dtype(record.dtype))
        if values is not None and file is not None and self._verified.get(path) == file:
            return values
        if values is None or digest(values) != record.digest:
            path.unlink(missing_ok=True)
            return None
        if file is not None:
            self._verified[path] = file
        return values

    def _give_up(self, error: OSError) -> None:
        self._given_up = True
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        print(
            f"{stamp} inputs are read from the store: no copy in {self._scratch}: {error.strerror or error}",
            file=sys.stderr,
            flush=True,
        )


def _recorded(store: ArrayReader, name: str, key: Key) -> Record | None:
    record = store.journal.latest(name, key)
    if record is None:
        store.journal.refresh()
        record = store.journal.latest(name, key)
    return record


def _write(path: Path, values: Block) -> None:
    """Not flushed to the disk: after a power cut the copy is not what its digest says, and is made anew."""
    partial = path.with_suffix(PARTIAL)
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for part in plain_chunk(np.ascontiguousarray(values), values.shape):
                write_whole(descriptor, part)
        finally:
            os.close(descriptor)
        partial.rename(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _hold(path: Path, how: int) -> int:
    """A descriptor of a file that is there, locked; the lock lasts as long as it is open, and no longer than this
    process."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, how)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed between opening and locking


@contextlib.contextmanager
def _alone(path: Path, how: int = 0) -> Iterator[None]:
    descriptor = _hold(path, fcntl.LOCK_EX | how)
    try:
        yield
    finally:
        os.close(descriptor)
