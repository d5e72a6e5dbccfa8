"""What is done to a run before it begins, by name: death at a moment of its writing, another clock, less patience."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.store import arrays, files, lease, writer

YEAR = 365.25 * 86400

LINE = re.compile(rb"[0-9a-f]{8} \{")
"""How a line of the journal begins."""


def _die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _nth(count: int, act: Callable[..., Any], otherwise: Callable[..., Any]) -> Callable[..., Any]:
    """A function that acts at the n-th call, counted from 1, and does what it did at the others."""
    calls = 0

    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return (act if calls == count else otherwise)(*arguments, **named)

    return called


def _is_tile(path: Path) -> bool:
    return path.name.split(".")[0].isdecimal() and "gram" in path.parts


def _at_tile(count: int, instead: Callable[..., None]) -> None:
    """Do this instead of the n-th write of a tile's file."""
    original = files.replace_file
    calls = 0

    def replace(path: Path, *parts: Any) -> None:
        nonlocal calls
        calls += _is_tile(path)
        (instead if calls == count and _is_tile(path) else original)(path, *parts)

    arrays.replace_file = replace


def _half(path: Path, *parts: Any) -> None:
    content = b"".join(parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.0{files.PARTIAL}").write_bytes(content[: len(content) // 2])
    _die()


def _unrenamed(path: Path, *parts: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.0{files.PARTIAL}").write_bytes(b"".join(parts))
    _die()


def _renamed(path: Path, *parts: Any) -> None:
    files.replace_file(path, *parts)
    _die()


def _at_record(count: int, share: float) -> None:
    """Death once this share of the line (or lines) of the n-th append to the journal is written."""
    original = os.write
    calls = 0

    def write(file: int, data: bytes | memoryview) -> int:
        nonlocal calls
        calls += (is_line := LINE.match(data) is not None)
        if is_line and calls == count:
            original(file, data[: int(len(data) * share)])
            _die()
        return original(file, data)

    os.write = write


def dies(moment: str, count: int) -> None:
    """SIGKILL at the n-th time that a run comes to one of ``MOMENTS``."""
    MOMENTS[moment](count)


def _unappended(count: int) -> None:
    writer.JournalWriter._append = _nth(count, _die, writer.JournalWriter._append)


def _after_digest(count: int) -> None:
    arrays.digest = _nth(count, _die, arrays.digest)


def _recorded(count: int) -> None:
    original = writer.JournalWriter._append

    def then_die(self: Any, entries: Any, **how: Any) -> None:
        original(self, entries, **how)
        _die()

    writer.JournalWriter._append = _nth(count, then_die, original)


MOMENTS: dict[str, Callable[[int], None]] = {
    "before a tile's file is begun": lambda count: _at_tile(count, _die),
    "half of a tile's file written": lambda count: _at_tile(count, _half),
    "a tile's file not renamed yet": lambda count: _at_tile(count, _unrenamed),
    "a tile's file in its place": lambda count: _at_tile(count, _renamed),
    "a tile stored, its record not made": _after_digest,
    "a record made, not yet appended": _unappended,
    "half of a record's line written": lambda count: _at_record(count, 0.5),
    "a record's line written, not flushed": lambda count: _at_record(count, 1.0),
    "a record safe, its task not yet done": _recorded,
}


def clock(years: float) -> None:
    """A clock that is off by so many years."""
    now = time.time
    time.time = lambda: now() + years * YEAR


def patience(seconds: float) -> None:
    """Leases are given up after so many seconds of silence instead of half a minute."""
    defaults = lease.Lease.__init__.__kwdefaults__
    assert defaults is not None
    defaults |= {"patience": seconds, "beat": seconds / 20}
