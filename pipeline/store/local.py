"""Zarr's local store, made durable."""

from __future__ import annotations

import asyncio

from zarr.core.buffer import Buffer
from zarr.storage import LocalStore

from pipeline.store.files import replace_file


class DurableStore(LocalStore):
    """A ``LocalStore`` whose writes are on the disk when they return.

    Zarr's own writes are atomic (a temporary file, renamed) but not flushed: a power cut may leave a chunk of
    zero length under its final name although its record is in the journal.
    """

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()
        await asyncio.to_thread(self.set_sync, key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        # Group metadata only, which is the same whoever writes it.
        if not await self.exists(key):
            await self.set(key, value)

    def set_sync(self, key: str, value: Buffer) -> None:
        self._check_writable()
        replace_file(self.root / key, value.as_buffer_like())
