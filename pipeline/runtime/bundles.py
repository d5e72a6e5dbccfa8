"""Bundles of tasks that Dask has, and what becomes of each task in them. Everything here is in the loop's thread.

**Outcomes as events.** An outcome is a few hundred bytes. Fetched as the result of a Dask future it would
cost a request to the scheduler and one to the worker; sent by the worker as an event it travels with the
message that its Dask task is done. Should an event be missing although the future is finished, the task
counts as lost.

**Deaths.** Dask retries nothing here. When a worker dies, every task on it comes back, and the frontier
decides. One task is charged with the death, the others are handed back for free. Workers take tasks in the
order in which they were submitted, so it is the oldest one without an outcome. That can be wrong: the worker
may have died between finishing a task and saying so. Therefore all of them are suspects from now on, and
when a worker begins a suspect it says so first, and waits until that must have been heard.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from distributed import Client, Future, KilledWorker

from pipeline.plan.tasks import Task
from pipeline.runtime.executor import Outcome, describe
from pipeline.runtime.worker_side import run_and_report

# All tasks of a dead worker are reported at once; this long after the first it is judged which one ran.
_JUDGEMENT_SECONDS = 0.05
# A client sends at once, then not again for 10 ms. So releases wait: the next task must not wait for them.
_RELEASE_SECONDS = 0.1
_DEATH = "the worker running it died (killed, or out of memory)"


@dataclass(frozen=True, slots=True)
class Stage:
    """What was bound: a number that counts up, and the pickled work."""

    generation: int
    work: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    task: Task
    stage: Stage


class Owner(Protocol):
    """Who hears what becomes of attempts."""

    def finished(self, attempt: Attempt, outcome: Outcome, address: str) -> None:
        """The worker at this address says so."""
        ...

    def lost(self, attempt: Attempt, outcome: Outcome | None, died_on: str | None = None) -> None:
        """No worker will say what became of it; None: it was not begun. `died_on`: address of the worker with whose
        death it is charged."""
        ...

    def room(self) -> None:
        """Workers may have less to do than they could."""
        ...


@dataclass(slots=True)
class _Bundle:
    """Attempts that are one Dask task.

    Attributes:
        open: those without an outcome, in the order of execution.
        allowed: addresses of the workers that may run it; None: any.
        home: address of the worker to which it was sent because its tasks prefer that one.
        begun: the one that the worker said it would begin. It says so for suspects only.
    """

    open: dict[int, Attempt]
    future: Future
    allowed: frozenset[str] | None
    home: str | None = None
    begun: int | None = None
    follower: asyncio.Task[None] | None = None


class Bundles:
    """The bundles that are under way.

    Args:
        topic: of the events with which workers report; whoever subscribes to it hands them to `reported`.
        resources: that a worker must have to be given one.
    """

    def __init__(self, client: Client, topic: str, resources: dict[str, int], owner: Owner):
        self._client = client
        self._topic = topic
        self._resources = resources
        self._owner = owner
        self._under_way: dict[int, _Bundle] = {}
        self._numbers = itertools.count()
        self._suspects: set[str] = set()
        self._deaths: dict[str, list[int]] = {}
        self._spent: list[Future] = []

    def __len__(self) -> int:
        return len(self._under_way)

    def homes(self) -> Counter[str | None]:
        """How many bundles were sent to each worker by its name, and to none (None)."""
        return Counter(bundle.home for bundle in self._under_way.values())

    def first_open(self, number: int) -> str | None:
        """Key of the first task without an outcome of a bundle. In any thread."""
        if bundle := self._under_way.get(number):
            for attempt in list(bundle.open.values()):
                return attempt.task.key
        return None

    def send(
        self, attempts: list[Attempt], allowed: list[str] | None, home: str | None, logs: str | None
    ) -> None:
        """Give attempts to Dask as one task, for the worker at `home`, or for any of those that are allowed."""
        numbered = {next(self._numbers): attempt for attempt in attempts}
        number = next(iter(numbered))
        stage = attempts[0].stage
        future = self._client.submit(
            run_and_report,
            pickle.dumps([(n, a.task, a.task.key in self._suspects) for n, a in numbered.items()]),
            blob=stage.work,
            topic=self._topic,
            generation=stage.generation,
            logs=logs,
            # A key of its own for each attempt: Dask never confuses it with one it is still forgetting.
            key=f"{attempts[0].task.kind}-{number:012d}",
            # Dask's own notion of order is coarse: what comes within 100 ms counts as simultaneous.
            priority=-number,
            resources=self._resources,
            pure=False,
            workers=allowed if home is None else [home],
            # Should it leave before it begins, Dask gives the bundle to another.
            allow_other_workers=home is not None,
        )
        bundle = _Bundle(numbered, future, None if allowed is None else frozenset(allowed), home)
        bundle.follower = asyncio.create_task(self._follow(number, bundle))
        self._under_way[number] = bundle

    def reported(self, event: tuple[float, tuple[int, bytes]]) -> None:
        """A worker sent outcomes of tasks of a bundle."""
        bundle_number, data = event[1]
        bundle = self._under_way.get(bundle_number)
        if bundle is None:  # of a stage that was given up, or of a worker that was
            return
        bundle.begun, outcomes, address = pickle.loads(data)
        for number, outcome in outcomes:
            attempt = bundle.open.pop(number)
            self._suspects.discard(attempt.task.key)
            self._owner.finished(attempt, outcome, address)
        if not bundle.open:
            self._close(bundle_number)
            self._owner.room()

    def take_back(self, present: Collection[str]) -> None:
        """What only workers may run that are not there any more was not begun."""
        for number, bundle in list(self._under_way.items()):
            if bundle.allowed is not None and bundle.allowed.isdisjoint(present):
                for attempt in self._close(number).values():
                    self._owner.lost(attempt, None)

    def forget(self) -> None:
        """Nobody hears of what is under way any more."""
        for number in list(self._under_way):
            self._close(number)
        self._suspects.clear()
        self._deaths.clear()

    def release_spent(self) -> None:
        """Have Dask forget what is over."""
        for future in self._spent:
            future.release()
        self._spent.clear()

    async def _follow(self, number: int, bundle: _Bundle) -> None:
        """Waits for a bundle that ends without all its outcomes; cancelled when they are there."""
        outcome: Callable[[str], Outcome]
        try:
            await bundle.future
            outcome = partial(_lost, error="its outcome was lost on the way")
        except KilledWorker as death:
            self._hear_of_death(str(death.last_worker.address), number)
            return
        except asyncio.CancelledError:
            if not bundle.future.cancelled():
                raise
            outcome = partial(_lost, error="Dask cancelled it")
        except Exception as problem:  # what Dask could not do: import our code there, unpickle its arguments
            outcome = partial(Outcome, error=describe(problem))
        for attempt in self._close(number).values():
            self._owner.lost(attempt, outcome(attempt.task.key))
        self._owner.room()

    def _hear_of_death(self, address: str, number: int) -> None:
        if address not in self._deaths:
            self._deaths[address] = []
            asyncio.get_running_loop().call_later(_JUDGEMENT_SECONDS, self._judge, address)
        self._deaths[address].append(number)

    def _judge(self, address: str) -> None:
        """Charges one task with a worker's death: the one that said it would begin, or else the oldest."""
        begun: set[int | None] = set()
        attempts: dict[int, Attempt] = {}
        for number in sorted(self._deaths.pop(address, ())):
            if bundle := self._under_way.get(number):
                begun.add(bundle.begun)
                attempts |= self._close(number)
        self._suspects.update(attempt.task.key for attempt in attempts.values())
        charged = next((number for number in attempts if number in begun), next(iter(attempts), None))
        for number, attempt in attempts.items():
            if number == charged:
                self._owner.lost(attempt, _lost(attempt.task.key, error=_DEATH), address)
            else:
                self._owner.lost(attempt, None)
        self._owner.room()

    def _close(self, number: int) -> dict[int, Attempt]:
        """Takes a bundle off the books and has Dask forget it. Its attempts without an outcome, in order."""
        bundle = self._under_way.pop(number, None)
        if bundle is None:
            return {}
        if bundle.follower is not asyncio.current_task() and bundle.follower is not None:
            bundle.follower.cancel()
        if not self._spent:
            asyncio.get_running_loop().call_later(_RELEASE_SECONDS, self.release_spent)
        self._spent.append(bundle.future)
        return bundle.open


def number_of(key: str) -> int | None:
    """The number of a bundle in the key of its Dask task; None for a task that is no bundle."""
    number = key.rpartition("-")[2]
    return int(number) if number.isdecimal() else None


def _lost(key: str, error: str) -> Outcome:
    return Outcome(key, error=error, transient=True)
