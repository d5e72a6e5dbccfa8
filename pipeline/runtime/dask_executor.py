"""The executor on Dask, as the coordinator's thread sees it: tasks go in, outcomes come back as events.

Everything that Dask is asked happens in the thread of an event loop: `dispatch` decides there who is given which tasks,
`bundles` follows what Dask has. What crosses between the threads are posted calls and a queue of outcomes.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client
from distributed.protocol.pickle import dumps

from pipeline.errors import TasksFailed
from pipeline.plan.tasks import Task
from pipeline.runtime.bundles import Attempt, Stage, number_of
from pipeline.runtime.dispatch import Crew, Dispatcher
from pipeline.runtime.executor import Outcome, Work
from pipeline.runtime.loop import LoopThread
from pipeline.runtime.performance import PerformanceReport
from pipeline.runtime.worker_side import refuse

# The work travels with every task.
_MAX_WORK_BYTES = 1 << 20


class DaskExecutor:
    """Runs tasks on the workers of a Dask scheduler. See ``Executor``.

    Args:
        needs: Dask resource that a worker must have to be given a task.
    """

    def __init__(self, loop: LoopThread, crew: Crew, address: str, *, needs: str | None = None):
        self._loop = loop
        self._crew = crew
        self._outcomes: queue.SimpleQueue[tuple[int, Outcome] | None] = queue.SimpleQueue()
        self._stage = Stage(0, b"")
        self._closed = False
        self._report: PerformanceReport | None = None
        # Keys of tasks in flight that prefer a worker.
        self._preferring: set[str] = set()
        self.client: Client
        self.client, self._dispatcher = loop.call(self._connect(address, {} if needs is None else {needs: 1}))
        crew.on_change(self._crew_changed)

    async def _connect(self, address: str, resources: dict[str, int]) -> tuple[Client, Dispatcher]:
        client = await Client(address, asynchronous=True, set_as_default=False)
        topic = f"ntk-{uuid.uuid4().hex}"
        dispatcher = Dispatcher(client, self._crew, topic, resources, self._deliver)
        client.subscribe_topic(topic, dispatcher.bundles.reported)
        return client, dispatcher

    # -- in the coordinator's thread ----------------------------------------------------------------

    @property
    def capacity(self) -> int:
        return self._dispatcher.slots * self._dispatcher.bundle_size + len(self._preferring)

    @property
    def dashboard_link(self) -> str | None:
        return self._crew.dashboard_link

    def bind(self, work: Work) -> None:
        pickled = dumps(work)
        if len(pickled) > _MAX_WORK_BYTES:
            size = f"{len(pickled):,} bytes"
            raise ValueError(f"the work pickles to {size}; it travels with each task, at most 1 MiB")
        self._stage = Stage(self._stage.generation + 1, pickled)
        self._dispatcher.bundle_size = 1
        self._preferring.clear()
        self._loop.post(self._dispatcher.forget_all)

    def log_to(self, folder: Path) -> None:
        self._dispatcher.logs = str(folder)

    def report_to(self, write: Callable[[str], object]) -> None:
        """When this executor is closed, `write` is given Dask's performance report of what ran since, an HTML page."""
        self._report = PerformanceReport(self.client, write)
        self._loop.call(self._report.begin())

    def submit(self, task: Task) -> None:
        if not self._stage.generation:
            raise RuntimeError("bind(work) comes before submit()")
        if task.prefers:
            self._preferring.add(task.key)
        self._loop.post(self._dispatcher.enqueue, Attempt(task, self._stage))

    def wait(self, timeout: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with contextlib.suppress(queue.Empty):
            item = self._outcomes.get(timeout=timeout)
            while True:
                # Outcomes of an earlier stage that was given up are of no interest to this one.
                if item is not None and item[0] == self._stage.generation:
                    outcomes.append(item[1])
                    self._preferring.discard(item[1].key)
                item = self._outcomes.get_nowait()
        if not outcomes and (reason := self._crew.lost()):
            raise TasksFailed(
                f"no worker is left: {reason}", hint="what finished is kept; see the messages above"
            )
        return outcomes

    def wake(self) -> None:
        self._outcomes.put(None)  # reentrant, so that a signal handler may call it

    def cancel(self) -> None:
        self._dispatcher.cancelled = self._stage.generation
        self._loop.post(self._cancel_in_loop, self._stage.generation)

    def workers(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for worker in self._crew.workers():
            name = self._dispatcher.names.get(str(worker["address"]), worker["label"])
            found.append({**worker, "label": name, "task": self._task_of(worker.pop("given"))})
        return found

    def _task_of(self, given: Any) -> str | None:
        """The task that a worker is at: the first without an outcome of the first bundle that it was given."""
        numbers = sorted(number for key in given if (number := number_of(key)) is not None)
        return next(filter(None, map(self._dispatcher.bundles.first_open, numbers)), None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._report is not None:
                self._report.finish(self._loop)
        finally:
            self._loop.call(self._disconnect())

    # -- in the loop's thread ------------------------------------------------------------------------------

    def _deliver(self, generation: int, outcome: Outcome) -> None:
        self._outcomes.put((generation, outcome))

    def _crew_changed(self) -> None:
        self._dispatcher.crew_changed()
        self.wake()

    def _cancel_in_loop(self, generation: int) -> None:
        self._dispatcher.room()
        self._refusing = asyncio.create_task(self._refuse_on_workers(generation))

    async def _refuse_on_workers(self, generation: int) -> None:
        # An asynchronous client returns awaitables, which its annotations do not say.
        answers: Any = self.client.run(refuse, generation, on_error="ignore")
        await answers

    async def _disconnect(self) -> None:
        self._dispatcher.forget_all()
        self._dispatcher.bundles.release_spent()
        closed: Any = self.client.close()
        await closed
