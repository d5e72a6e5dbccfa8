"""Numbers of bytes and seconds as people write and read them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50,
}  # fmt: skip


def parse_bytes(text: str | int | float) -> int:
    """Bytes meant by ``512 MB``, ``1.5GiB``, ``"8e9"`` or a plain number.

    Raises:
        ValueError: not a size, not finite or not positive.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)\s*", str(text))
    try:
        if match is None:
            raise ValueError
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    except (ValueError, KeyError, OverflowError):
        raise ValueError(f"not a size in bytes: {text!r} (write it as 512 MB or 4 GiB)") from None
    if size < 1:
        raise ValueError(f"a size must be positive, got {text!r}")
    return size


def human_bytes(count: float) -> str:
    """`1.4 GB`: three significant digits, powers of 1000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"


def human_seconds(seconds: float) -> str:
    """`12 ms`, `0.4 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
