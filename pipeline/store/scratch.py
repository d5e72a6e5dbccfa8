"""Arrays that do not outlive their stage: which names they have, and what is not promised of them."""

from __future__ import annotations

SCRATCH = "work"
"""Arrays below this name pass values between processes of one stage. They are neither flushed to the disk nor in the
journal: the record that `write`'s caller makes travels by message, and `read_recorded` checks against it."""

PASSING = "passing"
"""Arrays below this name are recorded as all others, so that a killed stage goes on from them, but not flushed to the
disk: they are rewritten too often for that, and removed when their stage is done. After a power cut they may be torn,
which their digests show."""


def is_scratch(name: str) -> bool:
    return name.startswith(f"{SCRATCH}/")


def is_flushed(name: str) -> bool:
    """Whether a chunk of this array has to survive a power cut."""
    return name.split("/", 1)[0] not in (SCRATCH, PASSING)
