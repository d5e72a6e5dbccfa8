"""The machinery with nothing to compute: tasks a second, memory of the coordinator, and a restart of a long run."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline.plan.gram import gram_array, gram_tasks
from pipeline.plan.tasks import Record, Task
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.cluster import LocalSettings, open_executor
from pipeline.runtime.drive import drive
from pipeline.store.journal import Journal

CPU_WORKERS = 2


@dataclass(frozen=True, slots=True)
class NoWork:
    """Returns the records of a task's tiles and computes nothing."""

    def __call__(self, task: Task) -> list[Record]:
        return [_record(chunk, task.key) for chunk in task.writes]


def _record(chunk: tuple[str, tuple[int, ...]], task: str) -> Record:
    array, key = chunk
    note = {"squares": 1.0, "min": 0.0, "max": 1.0}
    return Record(
        array,
        key,
        f"{key[0]:016x}{key[1]:016x}",
        (64, 64),
        "float64",
        0.05,
        32768,
        "host:1",
        1.7e9,
        task,
        note,
    )


def measure(counts: list[int]) -> dict[str, Any]:
    """Each count of no-op tiles through the real scheduler, two workers and the journal; then a restart."""
    result: dict[str, Any] = {"workers": CPU_WORKERS}
    process = psutil.Process()
    with open_executor(LocalSettings(CPU_WORKERS, dashboard=False)) as executor:
        executor.bind(NoWork())
        for count in counts:
            with tempfile.TemporaryDirectory() as folder:
                grid = _grid(count)
                tasks = gram_tasks(grid, ("ntk",), ())
                before = process.memory_info().rss
                seconds, most = _drive(tasks, executor, Path(folder))
                result[f"{len(tasks):,} tiles, tiles/s"] = len(tasks) / seconds
                result[f"{len(tasks):,} tiles, coordinator MB"] = most / 1e6
                result[f"{len(tasks):,} tiles, bytes a tile"] = (most - before) / len(tasks)
                result[f"{len(tasks):,} tiles, restart s"] = _restart(grid, Path(folder))
    return result


def _grid(count: int) -> TileGrid:
    blocks = int((2 * count) ** 0.5)
    return TileGrid(blocks * 64, 64)


def _drive(tasks: tuple[Task, ...], executor: Any, directory: Path) -> tuple[float, int]:
    """Seconds, and the largest resident size of this process."""
    process, most = psutil.Process(), 0
    looked = 0.0
    journal = Journal(directory).load()

    with journal.writer() as writer:

        def on_records(records: list[Record]) -> None:
            nonlocal most, looked
            writer.append(records)
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                most = max(most, process.memory_info().rss)

        began = time.perf_counter()
        drive(tasks, executor, on_records=on_records)
        return time.perf_counter() - began, most


def _restart(grid: TileGrid, directory: Path) -> float:
    """Seconds from opening the journal of a finished matrix to the first task of what is missing (one tile)."""
    array = gram_array("ntk")
    began = time.perf_counter()
    journal = Journal(directory).load()
    done = journal.done((array,)) - {(array, (0, 0))}
    tasks = gram_tasks(grid, ("ntk",), done)
    assert [task.writes for task in tasks] == [((array, (0, 0)),)]
    return time.perf_counter() - began
