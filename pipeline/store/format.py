"""How an array of a run is laid out in Zarr v3.

One chunk a tile, no sharding (a writer must never have to read, change and write back); codecs ``bytes``,
blosc when asked, and ``crc32c`` outermost, so that the checksum covers every byte of the file. A chunk that
is not there is an error, never the fill value; a chunk that happens to equal the fill value is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from pipeline.store.scratch import is_flushed

Compression = Literal["none", "lz4", "zstd"]

FLAT = "."
"""Between the indices of chunks that will be removed soon: 1,400 directories took 2.7 s to remove, their files 0.6."""

_CONFIG: Any = {"read_missing_chunks": False, "write_empty_chunks": True}
# Levels at which kernel tiles were measured: more of it costs time and gains nothing on floating-point noise.
_LEVELS = {"lz4": 5, "zstd": 1}


@dataclass(frozen=True, slots=True)
class Spec:
    """What makes two arrays the same: their layout, and the fingerprint of what their values depend on."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    compression: Compression
    fingerprint: str

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Spec:
        """Spec of a stored array."""
        attributes = array.attrs.asdict()
        return cls(
            tuple(array.shape),
            tuple(array.chunks),
            array.dtype.name,
            cast(Any, attributes.get("compression", "")),
            str(attributes.get("fingerprint", "")),
        )


def create_array(
    store: Store,
    name: str,
    spec: Spec,
    attributes: Mapping[str, Any],
    dimensions: tuple[str, ...] | None = None,
) -> None:
    """Make the array, where there is nothing of that name. Raises OSError.

    `dimensions` names its axes, by which xarray opens it.
    """
    dtype = np.dtype(spec.dtype)
    zarr.create_array(
        store,
        name=name,
        shape=spec.shape,
        chunks=spec.chunks,
        dtype=dtype,
        filters=None,
        serializer=BytesCodec(endian="little"),
        compressors=_codecs(spec.compression),
        chunk_key_encoding={"name": "default", "separator": "/" if is_flushed(name) else FLAT},
        fill_value=math.nan if dtype.kind in "fc" else 0,
        dimension_names=dimensions,
        attributes={**attributes, "fingerprint": spec.fingerprint, "compression": spec.compression},
        config=_CONFIG,
    )


def create_group(store: Store, name: str) -> None:
    """Make a group where there is none, "" for the root. Raises OSError."""
    zarr.open_group(store, path=name, mode="a")


def open_array(store: Store, name: str) -> zarr.Array[Any]:
    """Open an array for strict reads and complete writes.

    Raises:
        FileNotFoundError: there is none.
        Exception: its metadata is damaged (of many kinds, as the JSON happens to fail).
    """
    return zarr.open_array(store, path=name, mode="r" if store.read_only else "r+").with_config(_CONFIG)


def _codecs(compression: Compression) -> list[BytesBytesCodec]:
    if compression == "none":
        return [Crc32cCodec()]
    blosc = BloscCodec(cname=compression, clevel=_LEVELS[compression], shuffle="bitshuffle")
    # Blosc alone does not notice a truncated chunk.
    return [blosc, Crc32cCodec()]
