"""Where a run may be: a directory, or a prefix in a bucket, with those of `Path`'s words that a run needs."""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Buffer, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError

SCHEME = "s3://"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PART = re.compile(r"(?!\.\.?$)[\w.=@+-]+", re.ASCII)
"""A part of a key that every store and every tool writes alike."""


@dataclass(frozen=True, slots=True)
class ObjectPath:
    """An object, or all objects below it, of an S3 store; `str` gives the URL, `place` reads it.

    Methods that ask the store raise `StoreUnreachable` and `StoreRefused`, which are OSErrors, as `bucket.Bucket` says.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.bucket, self.key.rpartition("/")[0])

    def with_name(self, name: str) -> ObjectPath:
        return ObjectPath(self.bucket, f"{self.key.rpartition('/')[0]}/{name}".lstrip("/"))

    def resolve(self) -> ObjectPath:
        return self

    def exists(self) -> bool:
        """Whether there is such an object."""
        return self._store.size(self.key) is not None

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return bool(self._store.below(self.key))

    def iterdir(self) -> Iterator[ObjectPath]:
        for name in sorted(self._store.below(self.key)):
            yield self / name

    def read_bytes(self, start: int = 0) -> bytes:
        """Its bytes from `start` on. Raises FileNotFoundError."""
        return bytes(self._store.get(self.key, start))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: Buffer, *, quick: bool = False) -> None:
        """Replace it in one step; `quick`: try once, and not for long."""
        self._store.put(self.key, data, quick=quick)

    def create(self, data: Buffer) -> bool:
        """Write it unless it is there; see `Bucket.create`."""
        return self._store.create(self.key, data)

    def unlink(self, missing_ok: bool = True) -> None:
        self._store.remove([self.key])

    def sizes(self) -> dict[str, int]:
        """Bytes of every object below it, by the rest of its key."""
        return {key.removeprefix(f"{self.key}/"): size for key, size in self._store.sizes(self.key).items()}

    def remove_below(self) -> None:
        """Remove it, and every object below it."""
        self._store.remove([self.key, *self._store.sizes(self.key)])

    @property
    def _store(self):
        from pipeline.store.bucket import bucket

        return bucket(self.bucket)


Place = Path | ObjectPath


def place(text: str | Place) -> Place:
    """The place that a configuration or a command line names.

    Raises:
        InputError: a URL that is none of an S3 store, a name that is not UTF-8.
    """
    if not isinstance(text, str):
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text!a}: a name that is not UTF-8", hint="give it another name") from None
    if "://" not in text:
        return Path(text)
    name, _, key = text.removeprefix(SCHEME).rstrip("/").partition("/")
    if not text.startswith(SCHEME) or not _BUCKET.fullmatch(name):
        raise InputError(f"{text}: expected a directory or s3://BUCKET/PREFIX")
    if not key or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise InputError(
            f"{text}: expected a prefix of letters, digits and . _ - = @ + after the bucket, as s3://{name}/runs/first"
        )
    return ObjectPath(name, key)


@contextmanager
def temporary_beside(where: Place) -> Iterator[Place]:
    """A place of its own on the same disk or in the same bucket, with all that is put there removed at the end."""
    prefix = "ntk-plan-"
    if isinstance(where, Path):
        above = where.absolute().parent
        while not above.is_dir():
            above = above.parent
        with tempfile.TemporaryDirectory(prefix=prefix, dir=above) as folder:
            yield Path(folder)
        return
    beside = where.with_name(f"{prefix}{uuid.uuid4().hex}")
    try:
        yield beside
    finally:
        beside.remove_below()
