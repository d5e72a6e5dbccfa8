"""The executor on Dask: outcomes come back as events, losses go to the frontier, short tasks travel together.

**Outcomes as events.** An outcome is a few hundred bytes. Fetched as the result of a Dask future it would
cost a request to the scheduler and one to the worker; sent by the worker as an event it travels with the
message that its Dask task is done. Should an event be missing although the future is finished, the task
counts as lost.

**Bundles.** A Dask task costs about 2 ms here, 2 ms in a worker and a little silence between two of them. So
tasks that last less than ``_BUNDLE_SECONDS`` are handed out several at a time, as one Dask task; each reports
for itself.

**Deaths.** Dask retries nothing here. When a worker dies, every task on it comes back, and the frontier
decides. One task is charged with the death, the others are handed back for free. Workers take tasks in the
order in which they were submitted, so it is the oldest one without an outcome. That can be wrong: the worker
may have died between finishing a task and saying so. Therefore all of them are suspects from now on, and
when a worker begins a suspect it says so first, and waits until that must have been heard.

**Preferences.** A task that prefers a worker goes there, while that has at most ``_PREFERRED_AHEAD`` bundles; what
it has not been given goes to another that has had nothing to do for ``_IDLE_SECONDS`` (see ``preferred``). A worker
that left is preferred by nobody.

**Nodes that fail.** A task that raises is tried on another node, if there is one, before it counts as failed; a node
that keeps failing what others complete gets no more (see ``health``).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import pickle
import queue
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from distributed import Client, Future, KilledWorker
from distributed.protocol.pickle import dumps

from pipeline.errors import TasksFailed
from pipeline.plan.tasks import Task
from pipeline.runtime.executor import Outcome, Work, describe
from pipeline.runtime.health import Health
from pipeline.runtime.loop import LoopThread
from pipeline.runtime.performance import PerformanceReport
from pipeline.runtime.preferred import Preferred
from pipeline.runtime.worker_side import refuse, run_and_report

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
# All tasks of a dead worker are reported at once; this long after the first it is judged which one ran.
_JUDGEMENT_SECONDS = 0.05
# A client sends at once, then not again for 10 ms. So releases wait: the next task must not wait for them.
_RELEASE_SECONDS = 0.1
# The work travels with every task.
_MAX_WORK_BYTES = 1 << 20
_DEATH = "the worker running it died (killed, or out of memory)"


class Crew(Protocol):
    """Who keeps the workers: what the executor asks it, in the loop's thread or not."""

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


@dataclass(frozen=True, slots=True)
class _Stage:
    """What ``bind`` bound: a number that counts up, and the pickled work."""

    generation: int
    work: bytes


@dataclass(frozen=True, slots=True)
class _Attempt:
    task: Task
    stage: _Stage


@dataclass(slots=True)
class _Bundle:
    """Attempts that are one Dask task.

    Attributes:
        open: those without an outcome, in the order of execution.
        allowed: addresses of the workers that may run it; None: any.
        home: address of the worker to which it was sent because its tasks prefer that one.
        begun: the one that the worker said it would begin. It says so for suspects only.
    """

    open: dict[int, _Attempt]
    future: Future
    allowed: frozenset[str] | None
    home: str | None = None
    begun: int | None = None
    follower: asyncio.Task[None] | None = None


class DaskExecutor:
    """Runs tasks on the workers of a Dask scheduler. See ``Executor``.

    Args:
        needs: Dask resource that a worker must have to be given a task.
    """

    def __init__(self, loop: LoopThread, crew: Crew, address: str, *, needs: str | None = None):
        self._loop = loop
        self._crew = crew
        self._resources = {} if needs is None else {needs: 1}
        self._outcomes: queue.SimpleQueue[tuple[int, Outcome] | None] = queue.SimpleQueue()
        self._topic = f"ntk-{uuid.uuid4().hex}"
        self._stage = _Stage(0, b"")
        # Tasks of this generation and older ones are not begun any more.
        self._cancelled = 0
        self._closed = False
        self._bundle_size = 1
        self._logs: str | None = None
        self._report: PerformanceReport | None = None
        # Keys of tasks in flight that prefer a worker.
        self._preferring: set[str] = set()
        # Below: touched in the loop's thread only.
        self._queue: deque[_Attempt] = deque()
        self._preferred: Preferred[_Attempt] = Preferred(_PREFERRED_AHEAD)
        # Of the workers that are there: addresses by name, and the names that their records have, by address.
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._usable: list[str] = []
        self._filling = False
        self._relief: asyncio.TimerHandle | None = None
        self._bundles: dict[int, _Bundle] = {}
        self._numbers = itertools.count()
        self._mean_seconds: float | None = None
        self._suspects: set[str] = set()
        self._health = Health()
        self._deaths: dict[str, list[int]] = {}
        self._spent: list[Future] = []
        self.client: Client = loop.call(self._connect(address))
        crew.on_change(self._crew_changed)

    async def _connect(self, address: str) -> Client:
        client = await Client(address, asynchronous=True, set_as_default=False)
        client.subscribe_topic(self._topic, self._reported)
        return client

    # -- in the coordinator's thread ----------------------------------------------------------------

    @property
    def capacity(self) -> int:
        return self._slots * self._bundle_size + len(self._preferring)

    @property
    def _slots(self) -> int:
        return _BUNDLES_PER_WORKER * max(1, self._crew.expected)

    @property
    def dashboard_link(self) -> str | None:
        return self._crew.dashboard_link

    def bind(self, work: Work) -> None:
        pickled = dumps(work)
        if len(pickled) > _MAX_WORK_BYTES:
            size = f"{len(pickled):,} bytes"
            raise ValueError(f"the work pickles to {size}; it travels with each task, at most 1 MiB")
        self._stage = _Stage(self._stage.generation + 1, pickled)
        self._bundle_size = 1
        self._preferring.clear()
        self._loop.post(self._forget_all)

    def log_to(self, folder: Path) -> None:
        self._logs = str(folder)

    def report_to(self, write: Callable[[str], object]) -> None:
        """When this executor is closed, `write` is given Dask's performance report of what ran since, an HTML page."""
        self._report = PerformanceReport(self.client, write)
        self._loop.call(self._report.begin())

    def submit(self, task: Task) -> None:
        if not self._stage.generation:
            raise RuntimeError("bind(work) comes before submit()")
        if task.prefers:
            self._preferring.add(task.key)
        self._loop.post(self._enqueue, _Attempt(task, self._stage))

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
        self._cancelled = self._stage.generation
        self._loop.post(self._cancel_in_loop, self._cancelled)

    def workers(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        for worker in self._crew.workers():
            name = self._names.get(str(worker["address"]), worker["label"])
            found.append({**worker, "label": name, "task": self._task_of(worker.pop("given"))})
        return found

    def _task_of(self, given: Any) -> str | None:
        """The task that a worker is at: the first without an outcome of the first bundle that it was given."""
        for number in sorted(
            int(key.rpartition("-")[2]) for key in given if key.rpartition("-")[2].isdecimal()
        ):
            if bundle := self._bundles.get(number):
                for attempt in list(bundle.open.values()):
                    return attempt.task.key
        return None

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

    def _enqueue(self, attempt: _Attempt) -> None:
        # What is submitted in one go is looked at together.
        if not self._filling:
            self._filling = True
            asyncio.get_running_loop().call_soon(self._fill_slots)
        key, address = attempt.task.key, self._addresses.get(attempt.task.prefers)
        if address is None or node_of(address) in self._health.avoided | self._health.failed_on(key):
            self._queue.append(attempt)
        else:
            self._preferred.add(address, attempt)

    def _fill_slots(self) -> None:
        self._filling = False
        while self._queue and self._queue[0].stage.generation <= self._cancelled:
            self._deliver(self._queue.popleft(), None)
        for attempt in self._preferred.remove(lambda attempt: attempt.stage.generation <= self._cancelled):
            self._deliver(attempt, None)
        self._fill_preferred()
        while self._queue and (free := self._slots - len(self._bundles)) > 0:
            allowed = self._allowed(self._queue[0].task.key)
            if allowed is not None and not allowed:
                return  # until somebody comes
            # Few tasks are spread over all slots: a full bundle for one worker is none for the others.
            size = min(self._bundle_size, math.ceil(len(self._queue) / free))
            attempts = [self._queue.popleft()]
            # What a node failed has nodes of its own that it may go to.
            failed = self._health.failed_on
            while len(attempts) < size and failed(attempts[0].task.key) == failed(self._queue[0].task.key):
                attempts.append(self._queue.popleft())
            self._send(attempts, allowed)

    def _fill_preferred(self) -> None:
        while self._preferred and (found := self._preferred.next(self._under_way(), self._bundle_size)):
            self._send(found[1], None, found[0])
        if self._preferred and self._relief is None and 0 in self._under_way().values():
            self._relief = asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._relieve)

    def _under_way(self) -> dict[str, int]:
        """How many bundles each worker has that were sent to it by name."""
        homes = Counter(bundle.home for bundle in self._bundles.values())
        return {address: homes[address] for address in self._usable}

    def _relieve(self) -> None:
        """Workers that have nothing to do take what others have not begun."""
        self._relief = None
        for address, count in self._under_way().items():
            if count or any(bundle.home is None for bundle in self._bundles.values()):
                continue
            if attempts := self._preferred.relieve(self._bundle_size):
                self._send(attempts, None, address)

    def _find_workers(self) -> None:
        """Looks who is there; nobody prefers those who left."""
        labels = {str(worker["address"]): str(worker["label"]) for worker in self._crew.workers()}
        usable = self._crew.usable()
        self._usable = [address for address in labels if usable is None or address in usable]
        self._names = {address: name for address, name in self._names.items() if address in self._usable}
        self._addresses = {(labels | self._names)[address]: address for address in self._usable}
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

    def _crew_changed(self) -> None:
        """Tasks for workers that are all gone are for others; those that wait for a worker may find one."""
        self._find_workers()
        present = {str(worker["address"]) for worker in self._crew.workers()}
        for number, bundle in list(self._bundles.items()):
            if bundle.allowed is not None and not bundle.allowed & present:
                for attempt in self._close(number).values():
                    self._deliver(attempt, None)
        self._fill_slots()
        self.wake()

    def _send(self, attempts: list[_Attempt], allowed: list[str] | None, home: str | None = None) -> None:
        numbered = {next(self._numbers): attempt for attempt in attempts}
        number = next(iter(numbered))
        stage = attempts[0].stage
        future = self.client.submit(
            run_and_report,
            pickle.dumps([(n, a.task, a.task.key in self._suspects) for n, a in numbered.items()]),
            blob=stage.work,
            topic=self._topic,
            generation=stage.generation,
            logs=self._logs,
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
        self._bundles[number] = bundle

    def _reported(self, event: tuple[float, tuple[int, bytes]]) -> None:
        """A worker sent outcomes of tasks of a bundle."""
        bundle_number, data = event[1]
        bundle = self._bundles.get(bundle_number)
        if bundle is None:  # of a stage that was given up, or of a worker that was
            return
        bundle.begun, outcomes, address = pickle.loads(data)
        for number, outcome in outcomes:
            attempt = bundle.open.pop(number)
            self._suspects.discard(attempt.task.key)
            if outcome.worker and self._names.get(address) != outcome.worker:
                self._names[address] = outcome.worker
                self._find_workers()
            if outcome.records is not None:  # failing may be quicker than working
                self._measure(outcome.seconds)
            self._deliver(attempt, self._weighed(outcome, node_of(address)))
        if not bundle.open:
            self._close(bundle_number)
            self._fill_slots()

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
        self._bundle_size = max(1, min(_BUNDLE_TASKS, int(_BUNDLE_SECONDS / max(self._mean_seconds, 1e-6))))

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
            self._deliver(attempt, outcome(attempt.task.key))
        self._fill_slots()

    def _hear_of_death(self, address: str, number: int) -> None:
        if address not in self._deaths:
            self._deaths[address] = []
            asyncio.get_running_loop().call_later(_JUDGEMENT_SECONDS, self._judge, address)
        self._deaths[address].append(number)

    def _judge(self, address: str) -> None:
        """Charges one task with a worker's death: the one that said it would begin, or else the oldest."""
        begun: set[int | None] = set()
        attempts: dict[int, _Attempt] = {}
        for number in sorted(self._deaths.pop(address, ())):
            if bundle := self._bundles.get(number):
                begun.add(bundle.begun)
                attempts |= self._close(number)
        self._suspects.update(attempt.task.key for attempt in attempts.values())
        charged = next((number for number in attempts if number in begun), next(iter(attempts), None))
        for number, attempt in attempts.items():
            if number == charged:
                self._health.failed(attempt.task.key, node_of(address))
            self._deliver(attempt, _lost(attempt.task.key, error=_DEATH) if number == charged else None)
        self._fill_slots()

    def _close(self, number: int) -> dict[int, _Attempt]:
        """Takes a bundle off the books and has Dask forget it. Its attempts without an outcome, in order."""
        bundle = self._bundles.pop(number, None)
        if bundle is None:
            return {}
        if bundle.follower is not asyncio.current_task() and bundle.follower is not None:
            bundle.follower.cancel()
        if not self._spent:
            asyncio.get_running_loop().call_later(_RELEASE_SECONDS, self._release_spent)
        self._spent.append(bundle.future)
        return bundle.open

    def _release_spent(self) -> None:
        for future in self._spent:
            future.release()
        self._spent.clear()

    def _deliver(self, attempt: _Attempt, outcome: Outcome | None) -> None:
        """Hands an outcome to the coordinator's thread; None: the task was not begun."""
        if outcome is None:
            outcome = Outcome(attempt.task.key, error="it was not begun", transient=True, charged=False)
        self._outcomes.put((attempt.stage.generation, outcome))

    def _cancel_in_loop(self, generation: int) -> None:
        self._fill_slots()
        self._refusing = asyncio.create_task(self._refuse_on_workers(generation))

    async def _refuse_on_workers(self, generation: int) -> None:
        # An asynchronous client returns awaitables, which its annotations do not say.
        answers: Any = self.client.run(refuse, generation, on_error="ignore")
        await answers

    def _forget_all(self) -> None:
        self._queue.clear()
        self._preferred.clear()
        self._find_workers()
        for number in list(self._bundles):
            self._close(number)
        self._suspects.clear()
        self._health.forget_tasks()
        self._deaths.clear()
        self._mean_seconds = None

    async def _disconnect(self) -> None:
        self._forget_all()
        self._release_spent()
        closed: Any = self.client.close()
        await closed


def node_of(address: str) -> str:
    """The node in the address of a worker."""
    return urlsplit(address).hostname or address


def _lost(key: str, error: str) -> Outcome:
    return Outcome(key, error=error, transient=True)
