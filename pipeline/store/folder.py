"""A flat folder of small files that many processes share: the leases, on a disk or in a bucket."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pipeline.store.faults import StoreRefused
from pipeline.store.files import make_directory
from pipeline.store.place import ObjectPath, Place


class Folder(Protocol):
    """Every method raises OSError when the disk or the store refuses."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> str:
        """A file's text. Raises FileNotFoundError."""
        ...

    def write(self, name: str, text: str) -> None:
        """Set a file that nobody else writes; worth one quick try."""
        ...

    def create(self, name: str, text: str, draft: str) -> bool:
        """Make a file that is whole when it appears and never replaces another; `draft` is a name of the caller's own.

        Returns:
            Whether it was made; on an object store perhaps False although it was, when the answer was lost.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def require_creation(self, draft: str) -> None:
        """Make the folder, and sure that `create` does what it says.

        Raises:
            StoreRefused: the store replaces objects although it was told not to.
        """
        ...


class LocalFolder:
    def __init__(self, path: Path):
        self.path = path

    def names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except FileNotFoundError:
            return []

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def write(self, name: str, text: str) -> None:
        make_directory(self.path)
        (self.path / name).write_text(text)

    def create(self, name: str, text: str, draft: str) -> bool:
        make_directory(self.path)
        whole = self.path / draft
        with whole.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(whole, self.path / name)
        except FileExistsError:
            return False
        finally:
            whole.unlink()
        return True

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def require_creation(self, draft: str) -> None:
        # Every file system worth the name creates exclusively; `ntk doctor` looks.
        make_directory(self.path)


class ObjectFolder:
    def __init__(self, path: ObjectPath):
        self.path = path

    def names(self) -> list[str]:
        return list(self.path.sizes())

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_bytes(text.encode(), quick=True)

    def create(self, name: str, text: str, draft: str) -> bool:
        return (self.path / name).create(text.encode())

    def remove(self, name: str) -> None:
        (self.path / name).unlink()

    def require_creation(self, draft: str) -> None:
        probe = self.path / draft
        try:
            probe.create(b"")
            if probe.create(b""):
                raise StoreRefused(
                    f"{self.path}: the store replaces objects although it is told not to (If-None-Match: *), so that "
                    "two runs could not be kept apart",
                    hint="use a store with conditional writes (Amazon's, Ceph, MinIO, R2 have them), or a directory",
                )
        finally:
            with suppress(OSError):
                probe.unlink()


def folder_at(path: Place) -> Folder:
    return ObjectFolder(path) if isinstance(path, ObjectPath) else LocalFolder(path)
