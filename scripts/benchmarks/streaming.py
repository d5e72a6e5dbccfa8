"""Products with the stored Gram matrix, against reading the same chunks with nothing done to them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plan.gram import gram_array
from pipeline.plan.products import Patches
from pipeline.plan.tasks import Record, Task
from pipeline.stages.depends import fingerprint
from pipeline.stages.operator import stored_operator
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, opened, stored_record
from scripts.benchmarks import report, runs


@dataclass(frozen=True, slots=True)
class ReadWork:
    """Reads the tiles of a patch and does nothing with them: `checked` by the store, else the files' plain bytes into
    one buffer."""

    directory: str
    patches: Patches
    checked: bool

    def __call__(self, task: Task) -> list[Record]:
        store = opened(self.directory, "read")
        name = gram_array("ntk")
        array = store.array(name)
        buffer = bytearray(array.chunks[0] * array.chunks[1] * array.dtype.itemsize + 4)
        for key in self.patches.tiles(*task.args):
            if self.checked:
                store.read(name, key)
            else:
                with store.chunk_file(name, key).open("rb", buffering=0) as file:
                    file.readinto(buffer)
        return []


def measure(rows: int, tile: int, columns: tuple[int, ...], compression: str, repeats: int) -> dict[str, Any]:
    """Bytes of stored values a second, as they lie in memory, of reading and of products one after the other; the first
    of each kind, which warms caches, does not count."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        kernel = {"architecture": runs.RELU3, "precision": "float32"}
        gram = {"tile": tile, "compression": compression}
        options = {"kernel": kernel, "gram": gram, "spectrum": {"method": "none"}}
        ready = runs.prepared(Path(folder), rng.standard_normal((rows, 2)), runs.chosen_cluster(), **options)
        with runs.session(ready) as session:
            nbytes = fill(session, rng)
            patches = Patches.of(session.grid, 4)
            result: dict[str, Any] = {
                "rows": rows,
                "tile": tile,
                "GB": nbytes / 1e9,
                "tasks": len(patches.upper()),
            }

            def reading(checked: bool) -> Callable[[], object]:
                work = ReadWork(str(session.directory), patches, checked)
                tasks = [Task(f"read/{i}.{j}", "read", (i, j)) for i, j in patches.upper()]
                return lambda: session.collect(tasks, work)

            operator = stored_operator(session, "ntk", "gram")
            cases = {"read plain": reading(False), "read checked": reading(True)}
            for k in columns:
                vectors = rng.standard_normal((rows, k))
                cases[f"product, {k} columns"] = lambda vectors=vectors: operator.matvec(vectors)
            rates: dict[str, float] = {}
            for name, case in cases.items():
                case()
                walls, before = [], operator.read
                for _ in range(repeats):
                    began = time.perf_counter()
                    case()
                    walls.append(time.perf_counter() - began)
                result[f"{name}: GB/s"] = rates[name] = nbytes / report.median(walls) / 1e9
                if name.startswith("product"):
                    result[f"{name}: tiles read in each"] = (operator.read - before) / repeats
                    for base in ("read plain", "read checked"):
                        result[f"{name} / {base}"] = rates[name] / rates[base]
            result["peak MB per worker"] = session.peak_memory / 1e6
    return result


def fill(session: Session, rng: np.random.Generator) -> int:
    """Store random tiles where the Gram matrix would be; returns the bytes of their values."""
    name, grid = gram_array("ntk"), session.grid
    session.create(
        name,
        (grid.n, grid.n),
        (grid.tile, grid.tile),
        fingerprint=fingerprint(session.identity),
        dtype="float32",
        compression=session.config.gram.compression,
    )
    block = rng.standard_normal((grid.tile, grid.tile), dtype=np.float32)
    for i, j in grid.upper():
        tile = np.roll(block, (i, j), (0, 1))[: grid.size(i), : grid.size(j)]
        session.record([stored_record(session.store, name, (i, j), tile, Stopwatch())])
    return sum(4 * grid.entries(i, j) for i, j in grid.upper())
