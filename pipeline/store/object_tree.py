"""The arrays of a run as objects: a chunk is one object, written in one request, whole or not at all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Buffer, Iterator
from typing import Any

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer as ZarrBuffer
from zarr.core.buffer import BufferPrototype, default_buffer_prototype
from zarr.storage import ObjectStore

from pipeline.store.bucket import bucket, connect
from pipeline.store.format import FLAT
from pipeline.store.place import ObjectPath

_CHUNK = re.compile(rf"(.+?)/c[/{re.escape(FLAT)}].*")
"""The key of a chunk, from the name of its array on."""


class BucketStore(ObjectStore[Any]):
    """Zarr's `ObjectStore` whose reads and writes try again, and say what is wrong, as `bucket.Bucket` does."""

    def __init__(self, root: ObjectPath, *, read_only: bool = False):
        super().__init__(connect(root.bucket, prefix=root.key), read_only=read_only)
        self.root = root

    def with_read_only(self, read_only: bool = False) -> BucketStore:
        return BucketStore(self.root, read_only=read_only)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> ZarrBuffer | None:
        if byte_range is not None:
            return await super().get(key, prototype, byte_range)
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype)

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread((self.root / key).exists)

    async def set(self, key: str, value: ZarrBuffer) -> None:
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: ZarrBuffer) -> None:
        self._check_writable()
        await asyncio.to_thread((self.root / key).create, value.to_bytes())

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self.delete_sync, key)

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> ZarrBuffer | None:
        if byte_range is not None:
            raise NotImplementedError("a chunk of a run is read whole")
        try:
            found = bucket(self.root.bucket).get((self.root / key).key)
        except FileNotFoundError:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(found)  # pyright: ignore[reportArgumentType]

    def set_sync(self, key: str, value: ZarrBuffer) -> None:
        self._check_writable()
        (self.root / key).write_bytes(value.as_buffer_like())

    def delete_sync(self, key: str) -> None:
        self._check_writable()
        (self.root / key).unlink()


class ObjectTree:
    """A `Tree` below a prefix of a bucket."""

    def __init__(self, root: ObjectPath, *, writable: bool):
        self.root = root
        self._bucket = bucket(root.bucket)
        self._zarr = BucketStore(root, read_only=not writable)

    def zarr(self, name: str) -> BucketStore:
        return self._zarr

    def size(self, key: str) -> int | None:
        return self._bucket.size(self._full(key))

    def contents(self, key: str) -> Buffer:
        return self._bucket.get(self._full(key))

    def identity(self, key: str) -> None:
        """It would take a request, and what comes over a network is worth a digest."""

    def expect(self, key: str) -> None:
        """Nothing: what is fetched early would have to be kept."""

    def remove(self, key: str) -> None:
        self._bucket.remove([self._full(key)])

    def remove_array(self, name: str) -> None:
        metadata = self._full(f"{name}/zarr.json")
        found = self._bucket.sizes(self._full(name))
        self._bucket.remove(key for key in found if key != metadata)
        if metadata in found:
            self._bucket.remove([metadata])

    def remove_below(self, name: str) -> None:
        self._bucket.remove(self._bucket.sizes(self._full(name)))

    def arrays(self) -> list[str]:
        keys = self.root.sizes()
        with_chunks = {found[1] for key in keys if (found := _CHUNK.fullmatch(key))}
        return sorted(name for name in with_chunks if f"{name}/zarr.json" in keys)

    def chunks(self, name: str) -> Iterator[tuple[str, ...]]:
        for key in (self.root / name).sizes():
            if key.startswith(("c/", f"c{FLAT}")):
                yield tuple(key[2:].split(key[1]))

    def sweep(self) -> int:
        return 0  # no object is ever half written

    def _full(self, key: str) -> str:
        return f"{self.root.key}/{key}"
