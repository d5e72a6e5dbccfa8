"""What a process that holds a lease says of its work, for whoever asks: one small file beside the leases.

It says nothing about what is done (the journal does) and is gone when the process is; a file that a killed process left
is not believed once its lease is known to be dead.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.store.layout import RunLayout
from pipeline.store.place import ObjectPath, Place
from pipeline.store.register import Register

_SUFFIX = ".live"


@dataclass(frozen=True, slots=True)
class Live:
    """A process at work on a run.

    Attributes:
        lease: that it holds: ``run`` or ``shard-K-of-M``.
        host: of the process.
        pid: its number there.
        since: Unix time at which it took the lease.
        age: seconds since it last said anything, by the clocks of both machines; None when it never did.
        said: what it said last, JSON values.
    """

    lease: str
    host: str
    pid: int
    since: float
    age: float | None
    said: dict[str, Any]


class Sign:
    """Where the holder of a lease says what it does; a disk that refuses costs the words, not the run.

    Args:
        directory: the run directory.
        lease: that is held.
    """

    def __init__(self, directory: Place, lease: str):
        self._path = RunLayout(directory).leases / f"{lease}{_SUFFIX}"

    def write(self, said: dict[str, Any]) -> None:
        text = json.dumps({"at": time.time(), "pid": os.getpid()} | said)
        with suppress(OSError):
            if isinstance(self._path, ObjectPath):
                self._path.write_bytes(text.encode(), quick=True)
                return
            draft = self._path.with_suffix(".saying")
            draft.write_text(text)
            draft.replace(self._path)

    def remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def at_work(directory: Place) -> list[Live]:
    """Every process that holds a lease on a run and is not known to be dead.

    Raises:
        InputError: the leases cannot be read.
    """
    leases = RunLayout(directory).leases
    found = []
    for holder in Register(leases).read().holders:
        if holder.is_gone():
            continue
        said: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            said = json.loads((leases / f"{holder.name}{_SUFFIX}").read_text())
        if said.get("pid") != holder.pid:
            said = {}  # of an earlier holder, which was killed
        age = max(0.0, time.time() - said["at"]) if "at" in said else None
        found.append(Live(holder.name, holder.host, holder.pid, holder.since, age, said))
    return found
