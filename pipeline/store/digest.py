"""The digest that a record keeps of its chunk's values."""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash


def digest(values: np.ndarray[Any, Any]) -> str:
    """32 hex digits of XXH3-128 over dtype, shape and the values in C order, little-endian.

    It is of the decoded values, so that it stays the same whatever the codec, and depends on every bit: -0.0
    and 0.0 differ. It guards against accidents, not against forgery (XXH3 is not a cryptographic hash).
    """
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    # ascontiguousarray makes a scalar a vector: the header keeps the shape that was given.
    state = xxhash.xxh3_128(f"{little.dtype.str}{values.shape}".encode())
    state.update(little.reshape(-1).view(np.uint8).data)
    return state.hexdigest()
