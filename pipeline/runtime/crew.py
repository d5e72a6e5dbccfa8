"""The scheduler in this process and the supervised workers around it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import WorkerState

from pipeline.runtime.dask_settings import CONFIG, LOOPBACK, THREADS
from pipeline.runtime.supervisor import FROZEN_SECONDS, Slot

# The scheduler gave a worker up, yet its process lives: after this it is killed and replaced.
_LINGER_SECONDS = 1.0


class Watcher(SchedulerPlugin):
    """Passes arrivals and losses of workers on."""

    name = "crew"

    def __init__(self, arrived: Callable[[str], None], left: Callable[[], None]):
        self._arrived = arrived
        self._left = left

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self._arrived(str(scheduler.workers[worker].name))

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        self._left()


def present_state(worker: WorkerState) -> dict[str, object]:
    """What the scheduler knows of a worker: its address, the Dask tasks it was given and has not finished, and for how
    many seconds it was silent."""
    return {
        "address": worker.address,
        "given": tuple(str(task.key) for task in list(worker.processing)),
        "silent": round(max(time.time() - worker.last_seen, 0.0), 1),
    }


class LocalCrew:
    """Scheduler and workers on this machine, all on loopback. Lives in the event loop's thread.

    Args:
        slots: their processes are starting already.
        threads: of BLAS and XLA in each, for the record.
        resource: Dask's name of what every worker here has.
    """

    def __init__(self, slots: list[Slot], threads: int, resource: str | None = None):
        self._slots = slots
        self._threads = threads
        self._resources = {} if resource is None else {resource: THREADS}
        self._on_change: Callable[[], None] = lambda: None
        self._scheduler: Scheduler | None = None
        self._frozen: set[int] = set()

    async def start(self, *, dashboard: bool, dashboard_port: int = 0) -> str:
        """Starts the scheduler, sends the workers to it without waiting for them. The address for our client."""
        options: dict[str, Any] = {
            # Workers come by TCP. Our own client is in this process: its messages need no socket, no encoding.
            "protocol": ["tcp", "inproc"],
            "host": [LOOPBACK, None],
            "port": 0,
            "dashboard": dashboard,
            "dashboard_address": f"{LOOPBACK}:{dashboard_port}",
            # The frontier decides about retries: one death hands every task of that worker back to it.
            "allowed_failures": 0,
        }
        self._scheduler = await Scheduler(**options)
        self._scheduler.add_plugin(Watcher(self._arrived, self._left))
        for slot in self._slots:
            slot.begin(self._orders, self._changed)
        self._replace_frozen()
        inside = [str(listener.contact_address) for listener in self._scheduler.listeners]
        return next(address for address in inside if address.startswith("inproc"))

    def _orders(self, name: str) -> dict[str, Any]:
        """What the worker of this name is told to do."""
        assert self._scheduler is not None
        options = {
            "scheduler_ip": self._scheduler.address,
            "name": name,
            "nthreads": THREADS,
            "resources": self._resources,
            "host": LOOPBACK,
            "dashboard": False,
            "dashboard_address": f"{LOOPBACK}:0",
            # The plan promises to fit the memory; pausing or spilling a worker half-way helps nobody.
            "memory_limit": 0,
        }
        return {"config": CONFIG, "options": options}

    def _arrived(self, name: str) -> None:
        for slot in self._slots:
            if slot.worker_name == name:
                slot.reported()
        self._changed()

    def _left(self) -> None:
        self._changed()
        for slot in self._slots:
            asyncio.get_running_loop().call_later(
                _LINGER_SECONDS, self._kill_if_given_up, slot, slot.worker_name
            )

    def _kill_if_given_up(self, slot: Slot, name: str) -> None:
        if slot.worker_name == name and slot.has_reported and name not in self._known():
            slot.process.kill()

    def _replace_frozen(self) -> None:
        frozen = {slot.process.pid for slot in self._slots if slot.process.is_frozen()}
        for slot in self._slots:
            if slot.process.pid in frozen & self._frozen:
                slot.process.kill()
        self._frozen = frozen
        asyncio.get_running_loop().call_later(FROZEN_SECONDS, self._replace_frozen)

    def _known(self) -> set[str]:
        assert self._scheduler is not None
        return {str(worker.name) for worker in self._scheduler.workers.values()}

    def _changed(self) -> None:
        self._on_change()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls back when workers arrive or leave, or are given up."""
        self._on_change = callback

    @property
    def expected(self) -> int:
        return sum(slot.gone is None for slot in self._slots)

    @property
    def dashboard_link(self) -> str | None:
        if self._scheduler is None or "dashboard" not in self._scheduler.services:
            return None
        return f"http://{LOOPBACK}:{self._scheduler.services['dashboard'].port}/status"

    def workers(self) -> list[dict[str, object]]:
        """The workers that are there: known to the scheduler, and the present ones of their slots."""
        if self._scheduler is None:
            return []
        known = {str(worker.name): worker for worker in list(self._scheduler.workers.values())}
        return [
            {
                "name": name,
                "label": f"{socket.gethostname()}:{slot.process.pid}",
                "host": LOOPBACK,
                "pid": slot.process.pid,
                "threads": self._threads,
                **present_state(known[name]),
            }
            for slot in self._slots
            if (name := slot.worker_name) in known
        ]

    def lost(self) -> str | None:
        if self.expected:
            return None
        return "; ".join(slot.gone for slot in self._slots if slot.gone)

    def usable(self) -> list[str] | None:
        return None

    async def close(self) -> None:
        for slot in self._slots:
            slot.close()
        if self._scheduler is not None:
            # Connections to workers that die at this moment may fail in their timers; the processes end regardless.
            with contextlib.suppress(Exception):
                await self._scheduler.close(reason="the run is over")
