"""Which process this is, in terms that another process, later or elsewhere, can check."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def home() -> str:
    """Where process numbers mean the same as here: boot and process namespace of this machine.

    Two containers on one machine have one boot but may number their processes apart. Empty where there is no
    ``/proc``: then no other process can be judged by its number.
    """
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def own_start() -> int:
    """Start of this process in clock ticks after boot; 0 without ``/proc``."""
    try:
        return _state_and_start(os.getpid())[1]
    except OSError:
        return 0


def is_running(pid: int, start: int) -> bool:
    """Whether a process of this ``home`` lives: the number exists, with that start (numbers are used again),
    and is not a dead process that nobody has reaped yet."""
    try:
        state, started = _state_and_start(pid)
    except OSError:
        return _number_is_taken(pid)
    return started == start and state not in (b"Z", b"X")


def _state_and_start(pid: int) -> tuple[bytes, int]:
    stat = (_PROC / str(pid) / "stat").read_bytes()
    # The second field is the command in parentheses, which may itself contain spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0], int(fields[19])


def _number_is_taken(pid: int) -> bool:
    """``/proc`` may hide other people's processes (hidepid); signal 0 does not overlook them."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # Taken, by another user's process.
    return True
