"""Zarr arrays of other people's making, read whole as inputs of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from pipeline.errors import InputError


def read_zarr(path: Path, field: str) -> np.ndarray:
    """The array at `store.zarr` or `store.zarr/path/in/it`, of Zarr format 2 or 3; `field` is what errors call it.

    Raises:
        InputError: no such store or array, or one that cannot be read.
    """
    parts = path.parts
    cut = next(index for index, part in enumerate(parts) if part.endswith(".zarr")) + 1
    root, inner = Path(*parts[:cut]), "/".join(parts[cut:])
    if not root.is_dir():
        raise InputError(f"{field}: {root}: no such Zarr store")
    try:
        node = zarr.open(root, path=inner or None, mode="r")
    except (FileNotFoundError, KeyError, ValueError) as error:
        raise InputError(f"{field}: {path}: no array there ({error})") from None
    if not isinstance(node, zarr.Array):
        names = ", ".join(sorted(node.array_keys())[:20]) or "none"
        raise InputError(f"{field}: {path}: is a group", hint=f"add /path; arrays in it: {names}")
    try:
        return np.asarray(node[...])
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{field}: {path}: cannot be read: {error}") from None
