"""What lies under the arrays of a run: a directory, or a prefix in a bucket."""

from __future__ import annotations

from collections.abc import Buffer, Iterator
from typing import Protocol

from zarr.abc.store import Store

from pipeline.store.local_tree import LocalTree
from pipeline.store.mapped import Identity
from pipeline.store.object_tree import ObjectTree
from pipeline.store.place import ObjectPath, Place


class Tree(Protocol):
    """The Zarr group of a run, by keys as Zarr makes them: `gram/ntk/c/0/1`. Every method raises OSError."""

    def zarr(self, name: str) -> Store:
        """What Zarr is to read and write this array through."""
        ...

    def size(self, key: str) -> int | None:
        """Bytes stored under a key; None where there is nothing."""
        ...

    def contents(self, key: str) -> Buffer:
        """What is stored under a key, read-only; of a disk its pages and no copy. Raises FileNotFoundError."""
        ...

    def identity(self, key: str) -> Identity | None:
        """What tells whether a key still holds what was read; None where that would cost as much as reading."""
        ...

    def expect(self, key: str) -> None:
        """`contents` will be asked for soon."""
        ...

    def remove(self, key: str) -> None:
        """Remove what is stored under a key, if there is anything."""
        ...

    def remove_array(self, name: str) -> None:
        """Remove an array, its metadata last: killed halfway, it leaves one that is recognised as another."""
        ...

    def remove_below(self, name: str) -> None:
        """Remove everything below a name, in any order."""
        ...

    def arrays(self) -> list[str]:
        """Every array that has chunks, sorted."""
        ...

    def chunks(self, name: str) -> Iterator[tuple[str, ...]]:
        """The keys of an array's chunks, in parts, and whatever else lies among them."""
        ...

    def sweep(self) -> int:
        """Remove the unfinished files of killed writers; how many there were."""
        ...


def tree_at(root: Place, *, writable: bool) -> Tree:
    return (ObjectTree if isinstance(root, ObjectPath) else LocalTree)(root, writable=writable)  # type: ignore[arg-type]
