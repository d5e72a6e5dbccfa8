"""The machinery with nothing to compute: tasks a second, memory of the coordinator, and a restart of a long run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.config.cluster import SerialCluster
from pipeline.config.load import validate
from pipeline.config.model import RunConfig
from pipeline.plan.gram import each_gram_task, gram_array
from pipeline.plan.tasks import Record, Task, Tasks
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.cluster import LocalSettings, open_executor
from pipeline.runtime.drive import drive
from pipeline.stages import gram
from pipeline.stages.inputs import store_inputs
from pipeline.stages.opening import open_prepared
from pipeline.stages.prepare import prepare
from pipeline.store.journal import Journal

CPU_WORKERS = 2

KERNEL = """
import numpy as np
from pathlib import Path
def first(x1, x2):
    Path("begun").touch()
    return x1 @ x2.T
"""


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
                tasks = Tasks(lambda grid=grid: each_gram_task(grid, ("ntk",), ()))
                before = process.memory_info().rss
                seconds, most = _drive(tasks, executor, Path(folder))
                result[f"{len(tasks):,} tiles, tiles/s"] = len(tasks) / seconds
                result[f"{len(tasks):,} tiles, coordinator MB"] = most / 1e6
                result[f"{len(tasks):,} tiles, bytes a tile"] = (most - before) / len(tasks)
                result[f"{len(tasks):,} tiles, journal to first task s"] = _restart(grid, Path(folder))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            grid = _grid(count)
            result[f"{grid.count:,} tiles, process start to first new tile s"] = resumed(grid, Path(folder))
    return result


def _grid(count: int) -> TileGrid:
    blocks = int((2 * count) ** 0.5)
    return TileGrid(blocks * 64, 64)


def _drive(tasks: Tasks, executor: Any, directory: Path) -> tuple[float, int]:
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
    tasks = Tasks(lambda: each_gram_task(grid, ("ntk",), done))
    assert [task.writes for task in tasks] == [((array, (0, 0)),)]
    return time.perf_counter() - began


def resumed(grid: TileGrid, folder: Path) -> float:
    """Seconds from the start of `ntk gram` on a run of which one tile is missing to the moment that it is computed.

    The finished tiles have their records and files of no length, which nobody reads before that moment.
    """
    (folder / "kernel_of_bench.py").write_text(KERNEL)
    np.save(folder / "x.npy", np.random.default_rng(0).standard_normal((grid.n, 4)))
    document = {
        "data": {"train": {"x": str(folder / "x.npy")}, "task": "none"},
        "kernel": {"function": "kernel_of_bench:first"},
        "gram": {"tile": grid.tile},
        "out": str(folder / "run"),
    }
    (folder / "run.yaml").write_text(json.dumps(document))
    sys.modules.pop("kernel_of_bench", None)  # of an earlier folder
    sys.path[:] = [path for path in sys.path if not path.startswith(tempfile.gettempdir())]
    config = validate(RunConfig, document, "benchmark")
    ready = prepare(config, SerialCluster(kind="serial"), allow_code=True, folder=folder)
    opened = open_prepared(ready)
    array, last = gram_array("ntk"), (grid.blocks - 1, grid.blocks - 1)
    with opened as session:
        store_inputs(session)
        gram.create_arrays(session)
        session.writer.append(_record((array, key), "gram") for key in grid.upper() if key != last)
    for i in range(grid.blocks):
        row = folder / "run/store.zarr" / array / "c" / str(i)
        row.mkdir(parents=True)
        for j in range(i, grid.blocks):
            if (i, j) != last:
                (row / str(j)).touch()
    command = [sys.executable, "-m", "pipeline", "gram", "run.yaml", "--allow-code", "--cluster", "serial"]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (folder / "begun").exists():
            if process.poll() is not None:
                raise RuntimeError("the run ended before it computed a tile")
            time.sleep(0.005)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
