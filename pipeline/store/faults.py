"""What can be wrong with a stored tile or with the disk under it, as messages for a person."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, PipelineError

_REMEDIES = {
    errno.ENOSPC: "free some space there, or run with --out on another disk; what is stored is kept",
    errno.EDQUOT: "your quota is used up: free some space, or run with --out on another disk",
    errno.EROFS: "the file system is read-only: run with --out on another one",
    errno.EACCES: "make it writable for this user, or run with --out somewhere else",
    errno.EPERM: "make it writable for this user, or run with --out somewhere else",
}


@dataclass(frozen=True, slots=True)
class TileFault:
    """One stored chunk that is not what was recorded."""

    array: str
    key: tuple[int, ...]
    cause: str

    def __str__(self) -> str:
        return f"{self.array}, tile ({', '.join(map(str, self.key))}): {self.cause}"


class TileError(PipelineError):
    """A tile that was asked for is missing, damaged, or not the one recorded. Its values are not used."""

    exit_code = 1

    @classmethod
    def of(cls, fault: TileFault, directory: Path) -> TileError:
        return cls(str(fault), hint=f"ntk verify {directory} --repair")


def disk_error(error: OSError, path: Path, doing: str) -> InputError:
    """A failed read or write as an error for a person: path, cause and remedy."""
    cause = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and its permissions; a rerun resumes")
    return InputError(f"{path}: cannot {doing}: {cause}", hint=remedy)
