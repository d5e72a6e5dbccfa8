"""The arrays of a run as files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Buffer, Iterator
from pathlib import Path

from zarr.storage import LocalStore

from pipeline.store.faults import disk_error
from pipeline.store.files import PARTIAL, sync_directory
from pipeline.store.format import FLAT
from pipeline.store.local import DurableStore
from pipeline.store.mapped import Identity, ask_for, identity, mapped
from pipeline.store.scratch import is_flushed


class LocalTree:
    """A `Tree` below a directory."""

    def __init__(self, root: Path, *, writable: bool):
        self.root = root
        self._flushed = DurableStore(root, read_only=not writable)
        self._passing = LocalStore(root, read_only=not writable)

    def zarr(self, name: str) -> LocalStore:
        return self._flushed if is_flushed(name) else self._passing

    def size(self, key: str) -> int | None:
        path = self.root / key
        return path.stat().st_size if path.is_file() else None

    def contents(self, key: str) -> Buffer:
        return mapped(self.root / key)

    def identity(self, key: str) -> Identity | None:
        return identity(self.root / key)

    def expect(self, key: str) -> None:
        ask_for(self.root / key)

    def remove(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def remove_array(self, name: str) -> None:
        path = self.root / name
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

    def remove_below(self, name: str) -> None:
        path = self.root / name
        if path.is_dir():
            shutil.rmtree(path)

    def arrays(self) -> list[str]:
        folders = (file.parent for file in self.root.rglob("zarr.json"))
        return sorted(str(folder.relative_to(self.root)) for folder in folders if _has_chunks(folder))

    def chunks(self, name: str) -> Iterator[tuple[str, ...]]:
        root = self.root / name / "c"
        for directory, _, files in os.walk(root):
            above = Path(directory).relative_to(root).parts
            yield from ((*above, file) for file in files)
        for file in (self.root / name).glob(f"c{FLAT}*"):
            yield tuple(file.name.split(FLAT)[1:])

    def sweep(self) -> int:
        leftovers = list(self.root.rglob(f"*{PARTIAL}"))
        for path in leftovers:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, path, "remove an unfinished file") from error
        return len(leftovers)


def _has_chunks(folder: Path) -> bool:
    return (folder / "c").is_dir() or any(folder.glob(f"c{FLAT}*"))
