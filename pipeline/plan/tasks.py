"""What is to be done (``Task``) and what was done (``Record``), as values that travel and are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import Any

# One chunk of one array, ("gram/ntk", (0, 3)): the unit that is written, recorded, verified and recomputed.
Chunk = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Task:
    """One unit of work of a stage.

    Attributes:
        key: unique within a plan; equal plans give equal keys, so a rerun recognises its tasks.
        kind: which work function handles it.
        args: small picklable values, the meaning of which belongs to the kind.
        deps: keys of the tasks that must be complete before this one may start.
        writes: the chunks that it stores; each is written by one task of a plan only.
        priority: ready tasks of a lower number are taken first.
        prefers: the worker, as in ``Record.worker``, that should do it where nothing speaks against it.
    """

    key: str
    kind: str
    args: tuple[Any, ...] = ()
    deps: tuple[str, ...] = ()
    writes: tuple[Chunk, ...] = ()
    priority: int = 0
    prefers: str = ""


class Tasks:
    """Tasks without dependencies that are made anew each time they are iterated over, so that a plan of 100,000 of them
    takes no memory.

    Args:
        make: gives an iterator over the tasks, the same each time.
    """

    def __init__(self, make: Callable[[], Iterator[Task]]):
        self._make = make
        self._count = self.chunks = 0
        for task in make():
            self._count += 1
            self.chunks += len(task.writes)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Task]:
        return self._make()


@dataclass(frozen=True, slots=True)
class Record:
    """Proof that one chunk was computed and stored.

    Attributes:
        array: name in the store, as ``gram/ntk``.
        key: chunk indices, one for each axis.
        digest: hash of the decoded values, dtype and shape (``pipeline.store.digest``).
        shape: valid shape of the chunk, smaller than the chunk grid's at the edge.
        dtype: numpy name, as ``float64``.
        seconds: time it took to compute and store.
        nbytes: bytes it takes in the store, compressed where compression is on.
        worker: ``host:pid`` that wrote it.
        started: Unix time at which work on it began; for people and plots only, never for decisions.
        task: key of the task.
        note: small figures of the kind (partial sums for a trace, a pivot), JSON values only.
    """

    array: str
    key: tuple[int, ...]
    digest: str
    shape: tuple[int, ...]
    dtype: str
    seconds: float
    nbytes: int
    worker: str
    started: float
    task: str = ""
    note: dict[str, Any] = field(default_factory=dict)

    @property
    def chunk(self) -> Chunk:
        return self.array, self.key

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, empty fields left out."""
        data: dict[str, Any] = {
            "array": self.array,
            "key": list(self.key),
            "digest": self.digest,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "seconds": round(self.seconds, 6),
            "nbytes": self.nbytes,
            "worker": self.worker,
            "started": round(self.started, 3),
        }
        if self.task:
            data["task"] = self.task
        if self.note:
            data["note"] = self.note
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Record:
        """Inverse of ``to_json``; unknown fields are ignored so that older versions read newer journals.

        Raises:
            KeyError: a field is missing.
        """
        # A journal of 100,000 records repeats a handful of names: interned, they cost a pointer each.
        return cls(
            array=intern(data["array"]),
            key=tuple(data["key"]),
            digest=data["digest"],
            shape=tuple(data["shape"]),
            dtype=intern(data["dtype"]),
            seconds=data["seconds"],
            nbytes=data["nbytes"],
            worker=intern(data["worker"]),
            started=data["started"],
            task=data.get("task", ""),
            note=data.get("note", {}),
        )


def chunk_name(key: tuple[int, ...]) -> str:
    """A chunk's indices as they stand in task keys: ``0.3``."""
    return ".".join(map(str, key))
