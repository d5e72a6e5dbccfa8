"""Work for the executors' tests: what a task does is its kind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import GateError, PipelineError
from pipeline.plan.tasks import Record, Task
from pipeline.runtime.executor import worker_name


class OddError(PipelineError):
    """Cannot be rebuilt from its arguments."""

    exit_code = 1

    def __init__(self, first: int, second: int):
        super().__init__(f"{first} is not {second}", hint="make them equal")

    def __reduce__(self):
        return (OddError, ("only one",))


def record(task: Task, value: object, seconds: float = 0.0) -> Record:
    return Record(
        "a", (0,), "digest", (1,), "float64", seconds, 8, worker_name(), 0.0, task.key, {"value": value}
    )


@dataclass(frozen=True)
class Act:
    """Runs tasks of the kinds below. ``directory``: for what must be known across attempts and processes."""

    directory: Path

    def __call__(self, task: Task) -> list[Record]:
        with (self.directory / f"{task.key}.runs").open("a") as runs:
            runs.write("x")
        return [record(task, getattr(self, task.kind)(*task.args))]

    def runs(self, key: str) -> int:
        """How often the task was begun, in any process."""
        file = self.directory / f"{key}.runs"
        return len(file.read_text()) if file.exists() else 0

    def square(self, number: int) -> int:
        return number * number

    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def clutches(self, seconds: int) -> None:
        """Holds the interpreter lock, as SciPy's LAPACK does."""
        ctypes.PyDLL(None).sleep(seconds)

    def breaks(self, message: str) -> None:
        raise ValueError(message)

    def gate(self) -> None:
        raise GateError("the residual is 3", hint="a larger ridge")

    def odd(self) -> None:
        raise OddError(1, 2)

    def exits(self) -> None:
        sys.exit(4)

    def kills_once(self, name: str) -> str:
        """Kills its worker the first time."""
        marker = self.directory / name
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def kills(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def environments(self, *names: str) -> list[str | None]:
        time.sleep(0.02)
        return [os.environ.get(name) for name in names]

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)


@dataclass(frozen=True)
class Unloadable:
    """Pickles, but not back."""

    def __call__(self, task: Task) -> list[Record]:
        return []

    def __reduce__(self):
        return (int, ("not a number",))


@dataclass(frozen=True)
class Memory:
    """Says how many tasks it has seen; travels without what it saw."""

    name: str
    seen: list[int] = field(default_factory=list, compare=False)

    def __call__(self, task: Task) -> list[Record]:
        self.seen.append(task.args[0])
        return [record(task, len(self.seen))]

    def __reduce__(self):
        return (Memory, (self.name,))
