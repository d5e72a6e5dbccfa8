"""What a process does when it ends in peace: a worker when its coordinator is done with it, any other at its exit."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable

from pipeline.runtime.loop import quietly

_at_end: list[Callable[[], object]] = []


def at_end(callback: Callable[[], object]) -> None:
    """Have something done then; what it raises is not heard of. It must not take long: a worker has half a second."""
    _at_end.append(callback)


@atexit.register
def end() -> None:
    """Do it now. A worker does not leave through the interpreter's own exit, and calls this."""
    with contextlib.suppress(IndexError):
        while True:
            callback = _at_end.pop()
            quietly(callback)
