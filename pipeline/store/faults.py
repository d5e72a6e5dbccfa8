"""What can be wrong with a stored tile or with the disk under it, as messages for a person."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import InputError, PipelineError

if TYPE_CHECKING:
    from pipeline.store.place import Place

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
        return (
            f"{self.array}, tile ({', '.join(map(str, self.key))}): {self.cause}"
            if self.key
            else (f"{self.array}: {self.cause}")
        )


class TileError(PipelineError):
    """A tile that was asked for is missing, damaged, or not the one recorded. Its values are not used."""

    exit_code = 1

    @classmethod
    def of(cls, fault: TileFault, directory: Place) -> TileError:
        return cls(str(fault), hint=f"ntk verify {directory} --repair")


class ObjectStoreError(PipelineError, OSError):
    """An object store does not do what it was asked; an OSError as a disk's, which says for itself what is wrong."""


class StoreUnreachable(ObjectStoreError):
    """It gives no sound answer, though asked again and again; a rerun resumes."""

    exit_code = 3


class StoreRefused(ObjectStoreError):
    """It says no: no such bucket, no right to it."""


def disk_error(error: OSError, path: Place, doing: str) -> PipelineError:
    """A failed read or write as an error for a person: path, cause and remedy."""
    if isinstance(error, ObjectStoreError):
        return error
    cause = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "check the disk and its permissions; a rerun resumes")
    return InputError(f"{path}: cannot {doing}: {cause}", hint=remedy)
