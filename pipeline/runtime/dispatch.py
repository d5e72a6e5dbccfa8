"""Who is given which tasks, and how many at a time. Everything here is in the loop's thread.

**Bundles.** A Dask task costs about 2 ms here, 2 ms in a worker and a little silence between two of them. So
tasks that last less than ``_BUNDLE_SECONDS`` are handed out several at a time, as one Dask task; each reports
for itself.

**Preferences.** A task that prefers a worker goes there, while that has at most ``_PREFERRED_AHEAD`` bundles; what
it has not been given goes to another that has had nothing to do for ``_IDLE_SECONDS`` (see ``preferred``). A worker
that left is preferred by nobody.

**Nodes that fail.** A task that raises is tried on another node, if there is one, before it counts as failed; a node
that keeps failing what others complete gets no more (see ``health``).
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import urlsplit

from distributed import Client

from pipeline.runtime.bundles import Attempt, Bundles
from pipeline.runtime.executor import Outcome
from pipeline.runtime.health import Health
from pipeline.runtime.preferred import Preferred

# One bundle runs, one waits in the worker, one on the scheduler: the next is there without asking us.
_BUNDLES_PER_WORKER = 3
# Of those that prefer a worker: one runs, one waits there.
_PREFERRED_AHEAD = 2
# Longer than it takes to hand over the tasks of a stage: only then has a worker really nothing to do.
_IDLE_SECONDS = 0.05
# What a bundle should last, and how many tasks it may have.
_BUNDLE_SECONDS = 0.25
_BUNDLE_TASKS = 32
# Weight of the latest task in the running mean of task times.
_LATEST_WEIGHT = 0.2


class Crew(Protocol):
    """Who keeps the workers: what is asked of it, in the loop's thread or not."""

    @property
    def expected(self) -> int:
        """How many workers there are or will be again."""
        ...

    @property
    def dashboard_link(self) -> str | None: ...

    def workers(self) -> list[dict[str, Any]]: ...

    def lost(self) -> str | None:
        """Why there will never be a worker again, or None."""
        ...

    def usable(self) -> list[str] | None:
        """Addresses of the workers that may be given tasks; None: all that there are. In the loop's thread."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Calls back when workers come or go."""
        ...


class Dispatcher:
    """Tasks that wait, and the bundles made of them.

    Args:
        resources: that a worker must have to be given a task.
        deliver: takes the generation of a stage and the outcome of one of its tasks.

    Attributes:
        cancelled: tasks of this generation and older ones are not begun any more. Set by any thread.
        bundle_size: how many tasks one bundle has at most. Set by any thread.
        logs: folder for the workers' logs.
        names: of the workers that are there, as their records have them, by address.
        bundles: what Dask has.
    """

    def __init__(
        self, client: Client, crew: Crew, topic: str, resources: dict[str, int],
        deliver: Callable[[int, Outcome], None],
    ):  # fmt: skip
        self.cancelled = 0
        self.bundle_size = 1
        self.logs: str | None = None
        self.names: dict[str, str] = {}
        self.bundles = Bundles(client, topic, resources, self)
        self._crew = crew
        self._deliver = deliver
        self._queue: deque[Attempt] = deque()
        self._preferred: Preferred[Attempt] = Preferred(_PREFERRED_AHEAD)
        self._addresses: dict[str, str] = {}
        self._usable: list[str] = []
        self._filling = False
        self._relief: asyncio.TimerHandle | None = None
        self._mean_seconds: float | None = None
        self._health = Health()

    @property
    def slots(self) -> int:
        """Bundles that may be under way. In any thread."""
        return _BUNDLES_PER_WORKER * max(1, self._crew.expected)

    def enqueue(self, attempt: Attempt) -> None:
        # What is submitted in one go is looked at together.
        if not self._filling:
            self._filling = True
            asyncio.get_running_loop().call_soon(self.room)
        key, address = attempt.task.key, self._addresses.get(attempt.task.prefers)
        if address is None or node_of(address) in self._health.avoided | self._health.failed_on(key):
            self._queue.append(attempt)
        else:
            self._preferred.add(address, attempt)

    def crew_changed(self) -> None:
        """Tasks for workers that are all gone are for others; those that wait for a worker may find one."""
        self._find_workers()
        self.bundles.take_back({str(worker["address"]) for worker in self._crew.workers()})
        self.room()

    def forget_all(self) -> None:
        """A new stage begins: nothing of the one before is of interest."""
        self._queue.clear()
        self._preferred.clear()
        self._find_workers()
        self.bundles.forget()
        self._health.forget_tasks()
        self._mean_seconds = None

    # -- what becomes of attempts (see ``bundles.Owner``) -----------------------------------------------------

    def finished(self, attempt: Attempt, outcome: Outcome, address: str) -> None:
        if outcome.worker and self.names.get(address) != outcome.worker:
            self.names[address] = outcome.worker
            self._find_workers()
        if outcome.records is not None:  # failing may be quicker than working
            self._measure(outcome.seconds)
        self._deliver(attempt.stage.generation, self._weighed(outcome, node_of(address)))

    def lost(self, attempt: Attempt, outcome: Outcome | None, died_on: str | None = None) -> None:
        if died_on is not None:
            self._health.failed(attempt.task.key, node_of(died_on))
        if outcome is None:
            outcome = Outcome(attempt.task.key, error="it was not begun", transient=True, charged=False)
        self._deliver(attempt.stage.generation, outcome)

    def room(self) -> None:
        """Hand out what may be handed out."""
        self._filling = False
        while self._queue and self._queue[0].stage.generation <= self.cancelled:
            self.lost(self._queue.popleft(), None)
        for attempt in self._preferred.remove(lambda attempt: attempt.stage.generation <= self.cancelled):
            self.lost(attempt, None)
        self._fill_preferred()
        while self._queue and (free := self.slots - len(self.bundles)) > 0:
            allowed = self._allowed(self._queue[0].task.key)
            if allowed is not None and not allowed:
                return  # until somebody comes
            # Few tasks are spread over all slots: a full bundle for one worker is none for the others.
            size = min(self.bundle_size, math.ceil(len(self._queue) / free))
            attempts = [self._queue.popleft()]
            # What a node failed has nodes of its own that it may go to.
            failed = self._health.failed_on
            while len(attempts) < size and failed(attempts[0].task.key) == failed(self._queue[0].task.key):
                attempts.append(self._queue.popleft())
            self.bundles.send(attempts, allowed, None, self.logs)

    # -- who gets what ---------------------------------------------------------------------------------------

    def _fill_preferred(self) -> None:
        while self._preferred and (found := self._preferred.next(self._under_way(), self.bundle_size)):
            self.bundles.send(found[1], None, found[0], self.logs)
        if self._preferred and self._relief is None and 0 in self._under_way().values():
            self._relief = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._relieve)

    def _under_way(self) -> dict[str, int]:
        """How many bundles each worker has that were sent to it by name."""
        homes = self.bundles.homes()
        return {address: homes[address] for address in self._usable}

    def _relieve(self) -> None:
        """Workers that have nothing to do take what others have not begun."""
        self._relief = None
        for address, count in self._under_way().items():
            if count or self.bundles.homes()[None]:
                continue
            if attempts := self._preferred.relieve(self.bundle_size):
                self.bundles.send(attempts, None, address, self.logs)

    def _find_workers(self) -> None:
        """Looks who is there; nobody prefers those who left."""
        labels = {str(worker["address"]): str(worker["label"]) for worker in self._crew.workers()}
        usable = self._crew.usable()
        self._usable = [address for address in labels if usable is None or address in usable]
        self.names = {address: name for address, name in self.names.items() if address in self._usable}
        self._addresses = {(labels | self.names)[address]: address for address in self._usable}
        self._queue += self._preferred.orphans(self._usable)

    def _allowed(self, key: str) -> list[str] | None:
        """Addresses of the workers that may be given a task; None: any. Better a node that fails than none."""
        usable = self._crew.usable()
        bad = self._health.avoided | self._health.failed_on(key)
        if not bad:
            return usable
        return [address for address in self._present(usable) if node_of(address) not in bad] or usable

    def _present(self, usable: list[str] | None) -> list[str]:
        return [str(worker["address"]) for worker in self._crew.workers()] if usable is None else usable

    def _weighed(self, outcome: Outcome, node: str) -> Outcome:
        """An outcome, with the failure of a task that another node shall try turned into the loss that it may be.

        What is written for a person (an input, a gate) is the task's own fault wherever it runs."""
        if outcome.records is not None:
            self._health.completed(outcome.key, node)
        elif outcome.charged and not outcome.transient and outcome.exception is None:
            self._health.failed(outcome.key, node)
            others = {node_of(a) for a in self._present(self._crew.usable())}
            if others - self._health.failed_on(outcome.key) and self._health.deserves_another(outcome.key):
                return replace(outcome, transient=True, error=f"{outcome.error} (on {node})")
        return outcome

    def _measure(self, seconds: float) -> None:
        mean = seconds if self._mean_seconds is None else self._mean_seconds
        self._mean_seconds = mean + _LATEST_WEIGHT * (seconds - mean)
        self.bundle_size = max(1, min(_BUNDLE_TASKS, int(_BUNDLE_SECONDS / max(self._mean_seconds, 1e-6))))


def node_of(address: str) -> str:
    """The node in the address of a worker."""
    return urlsplit(address).hostname or address
