"""A thousand workers in virtual time: the real plan, frontier and drive, tiles as long as measured ones, stragglers and
deaths."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.plan.gram import Cut, gram_tasks, supertile
from pipeline.plan.tasks import Task
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.drive import drive
from pipeline.runtime.executor import Outcome, Work


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the simulated machines are like.

    Attributes:
        workers: how many.
        tile_seconds: median of a tile.
        spread: standard deviation of the logarithm of a tile's time.
        slow, slowness: share of workers that are slow all the time, and how many times slower they are.
        deaths_per_hour: of one worker; a death loses the task at work and the one in hand.
        restart_seconds: until a dead worker's successor begins.
        message_seconds: of the coordinator for each task, handing it out and taking its outcome in; measured by
            `scripts/bench scheduler`.
    """

    workers: int = 1000
    tile_seconds: float = 1.0
    spread: float = 0.15
    slow: float = 0.01
    slowness: float = 2.0
    deaths_per_hour: float = 0.05
    restart_seconds: float = 30.0
    message_seconds: float = 0.003


class SimulatedExecutor:
    """An `Executor` in virtual time. The coordinator serves one task at a time; a worker has one task at work and one
    in hand, as `DaskExecutor` arranges it.

    Attributes:
        now: virtual seconds since the start.
        useful: seconds of the finished tasks, had no worker been slow.
        deaths: of workers.
    """

    def __init__(self, fleet: Fleet, seed: int = 0):
        self._fleet, self._rng = fleet, random.Random(seed)
        self._pace = [
            fleet.slowness if self._rng.random() < fleet.slow else 1.0 for _ in range(fleet.workers)
        ]
        self._queue: deque[Task] = deque()
        self._at_work: list[Task | None] = [None] * fleet.workers
        self._in_hand: list[Task | None] = [None] * fleet.workers
        self._life = [0] * fleet.workers  # which process it is, to tell events of dead ones
        self._hungry: deque[int] = deque(2 * list(range(fleet.workers)))  # one entry for each free place
        self._events: list[tuple[float, int, str, int, int, tuple[Any, ...]]] = []
        self._number = 0
        self._free = 0.0  # when the coordinator is free next
        self.now = self.useful = 0.0
        self.deaths = 0
        for worker in range(fleet.workers):
            self._die_some_day(worker)

    @property
    def capacity(self) -> int:
        return 3 * self._fleet.workers

    def bind(self, work: Work) -> None:
        """Its tasks do nothing."""

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def wait(self, timeout: float) -> list[Outcome]:
        self._hand_out()
        self.now, _, kind, worker, life, what = heapq.heappop(self._events)
        if life == self._life[worker]:
            return getattr(self, f"_{kind}")(worker, *what)
        # What was on its way to a process that is dead by now comes back.
        return (
            [Outcome(what[0].key, error="it was not begun", transient=True, charged=False)]
            if kind == "sent"
            else []
        )

    def wake(self) -> None:
        """It never sleeps."""

    def cancel(self) -> None:
        """Nobody stops it."""

    def workers(self) -> list[dict[str, object]]:
        return []

    def close(self) -> None:
        """It holds nothing."""

    def _hand_out(self) -> None:
        while self._queue and self._hungry:
            self._free = max(self._free, self.now) + self._fleet.message_seconds
            self._at(self._free, "sent", self._hungry.popleft(), self._queue.popleft())

    def _sent(self, worker: int, task: Task) -> list[Outcome]:
        if self._at_work[worker] is None:
            self._begin(worker, task)
        else:
            self._in_hand[worker] = task
        return []

    def _begin(self, worker: int, task: Task) -> None:
        self._at_work[worker] = task
        tiles = sum(self._rng.lognormvariate(0.0, self._fleet.spread) for _ in task.args)
        seconds = tiles * self._fleet.tile_seconds
        self._at(self.now + seconds * self._pace[worker], "finished", worker, seconds)

    def _finished(self, worker: int, seconds: float) -> list[Outcome]:
        task, self._at_work[worker] = self._at_work[worker], None
        assert task is not None
        self.useful += seconds
        following, self._in_hand[worker] = self._in_hand[worker], None
        if following is not None:
            self._begin(worker, following)
        self._hungry.append(worker)
        return [Outcome(task.key, [], seconds=seconds)]

    def _dead(self, worker: int) -> list[Outcome]:
        self.deaths += 1
        self._life[worker] += 1
        self._hungry = deque(hungry for hungry in self._hungry if hungry != worker)
        lost = [task for task in (self._at_work[worker], self._in_hand[worker]) if task is not None]
        self._at_work[worker] = self._in_hand[worker] = None
        self._at(self.now + self._fleet.restart_seconds, "born", worker)
        self._die_some_day(worker)
        return [Outcome(task.key, error="the worker died", transient=True) for task in lost]

    def _born(self, worker: int) -> list[Outcome]:
        self._hungry.extend((worker, worker))
        return []

    def _die_some_day(self, worker: int) -> None:
        self._at(self.now + self._rng.expovariate(self._fleet.deaths_per_hour / 3600), "dead", worker)

    def _at(self, when: float, kind: str, worker: int, *what: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, kind, worker, self._life[worker], what))


def simulate(fleet: Fleet, rows: int, tile: int, cut: Cut | None = None, seed: int = 0) -> dict[str, Any]:
    """One Gram matrix on the fleet: useful tile seconds over wall time times workers.

    Args:
        cut: into tasks; as the plan makes it by default.
    """
    grid = TileGrid(rows, tile)
    cut = supertile(grid, fleet.tile_seconds, fleet.workers) if cut is None else cut
    tasks = gram_tasks(grid, ("ntk",), (), cut)
    executor = SimulatedExecutor(fleet, seed)
    drive(tasks, executor, on_records=lambda records: None, max_retries=100)
    return {
        "workers": fleet.workers,
        "tile seconds": fleet.tile_seconds,
        "tiles": grid.count,
        "side": cut.side,
        "tasks": len(tasks),
        "deaths": executor.deaths,
        "wall seconds": executor.now,
        "efficiency": executor.useful / (executor.now * fleet.workers),
    }


ROWS, TILE = 1_000_000, 2048
TILE_SECONDS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def curves(workers: int, message_seconds: float) -> dict[str, list[dict[str, Any]]]:
    """A million rows, for tiles of several lengths: one tile a task, and supertiles."""
    fleets = [
        Fleet(workers=workers, tile_seconds=seconds, message_seconds=message_seconds)
        for seconds in TILE_SECONDS
    ]
    return {
        "supertiles": [simulate(fleet, ROWS, TILE) for fleet in fleets],
        "one tile a task": [simulate(fleet, ROWS, TILE, Cut()) for fleet in fleets],
    }


def draw(found: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """The curves as a picture."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, points in found.items():
        x = [point["tile seconds"] for point in points]
        axes.semilogx(x, [100 * point["efficiency"] for point in points], marker="o", label=name)
    axes.axhline(95, color="grey", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="seconds of a tile", ylabel="efficiency, %", ylim=(0, 102),
        title=f"{found['supertiles'][0]['workers']:,} workers, one million rows, simulated",
    )  # fmt: skip
    axes.legend(frameon=False)
    FigureCanvasSVG(figure).print_svg(file)
