"""Running a plan to its end: joins frontier and executor; records are safe before a task counts as done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from pipeline.errors import PipelineError, TasksFailed
from pipeline.plan.tasks import Record, Task, Tasks
from pipeline.runtime.events import (
    Finished,
    Listener,
    Retried,
    Started,
    Summary,
    TaskDone,
    TaskFailed,
    WorkersChanged,
)
from pipeline.runtime.executor import Executor, Outcome
from pipeline.runtime.frontier import DEFAULT_MAX_RETRIES, Frontier, State
from pipeline.runtime.stop import StopFlag
from pipeline.runtime.stream import Stream

# Seconds that running tasks get to finish once a stop was asked for or the drive gives up.
DEFAULT_GRACE = 5.0
# A wrong input fails every task alike: after so many failures the rest is not worth trying.
DEFAULT_MAX_FAILURES = 3
# The wait returns at once on a result, a stop or the end of all workers; this is for the listener's worker
# list.
_TURN_SECONDS = 0.5


def drive(
    tasks: Iterable[Task] | Tasks,
    executor: Executor,
    *,
    on_records: Callable[[list[Record]], None],
    done: Iterable[str] = (),
    listener: Listener | None = None,
    stop: StopFlag | None = None,
    grace: float = DEFAULT_GRACE,
    max_retries: int = DEFAULT_MAX_RETRIES,
    max_failures: int = DEFAULT_MAX_FAILURES,
) -> Summary:
    """Runs every task once its dependencies are done. The executor is bound to the stage's work already.

    Args:
        tasks: in plan order; ``Tasks`` are made as they are handed out.
        on_records: makes records durable. Called in this thread with the records of every task that ended
            since the last call, before these tasks count as done. A record may come twice (at-least-once
            execution).
        done: keys finished earlier, which ``Tasks`` do not contain.
        listener: told what happens, in this thread.
        stop: once set, no task begins, running ones get ``grace`` seconds, what they deliver is recorded.
        max_retries: how often one task may be lost with its worker before it counts as failed.
        max_failures: how many failed tasks end the drive early.

    Raises:
        Stopped, Interrupted: ``stop`` was set before the last task was done.
        TasksFailed: tasks failed, or nobody is left to run them. Tracebacks are in its notes.
        PipelineError: a task raised it; it is raised as it was.
        ValueError: the tasks are not a plan (see ``Frontier``).
    """
    return _Drive(tasks, executor, on_records, done, listener, stop, grace, max_retries, max_failures).run()


class _Drive:
    def __init__(
        self,
        tasks: Iterable[Task] | Tasks,
        executor: Executor,
        on_records: Callable[[list[Record]], None],
        done: Iterable[str],
        listener: Listener | None,
        stop: StopFlag | None,
        grace: float,
        max_retries: int,
        max_failures: int,
    ):
        self._frontier: Frontier | Stream = (
            Stream(tasks, max_retries) if isinstance(tasks, Tasks) else Frontier(tasks, done, max_retries)
        )
        self._executor = executor
        self._on_records = on_records
        self._tell: Listener = listener or (lambda event: None)
        self._stop = stop or StopFlag()
        self._grace = grace
        self._max_failures = max_failures
        self._in_flight: set[str] = set()
        self._done = self._retries = 0
        self._busy = 0.0
        self._raised: PipelineError | None = None
        self._tracebacks: dict[str, str] = {}
        self._workers: Sequence[dict[str, object]] = ()
        self._looked_at_workers = 0.0

    def run(self) -> Summary:
        began = time.perf_counter()
        counts = self._frontier.counts
        self._earlier = counts.done
        self._total = sum(getattr(counts, state.value) for state in State)
        self._tell(Started(self._total, self._earlier))
        try:
            with self._stop.waking(self._executor.wake):
                while not self._frontier.finished and not self._gives_up:
                    self._fill_window()
                    self._turn(_TURN_SECONDS)
                if self._in_flight:
                    self._drain()
        finally:
            failed = len(self._frontier.failures)
            wall = time.perf_counter() - began
            summary = Summary(self._done, failed, self._retries, wall, self._busy)
            self._tell(Finished(summary))
        self._raise_if_unfinished()
        return summary

    @property
    def _gives_up(self) -> bool:
        enough = len(self._frontier.failures) >= self._max_failures
        return self._stop.is_set or self._raised is not None or enough

    def _fill_window(self) -> None:
        # Tasks that prefer a worker raise the capacity: they do not fill the places of the others.
        while tasks := self._frontier.take(self._executor.capacity - len(self._in_flight)):
            for task in tasks:
                self._in_flight.add(task.key)
                self._executor.submit(task)

    def _turn(self, timeout: float) -> None:
        """One wait, and everything that follows from what it brought."""
        outcomes = self._executor.wait(timeout)
        self._in_flight.difference_update(outcome.key for outcome in outcomes)
        succeeded = [outcome for outcome in outcomes if outcome.records is not None]
        for outcome in outcomes:
            if outcome.records is None:
                self._take_failure(outcome)
        if succeeded:
            # Recording waits for the disk. What is ready already need not wait with it.
            if not self._gives_up:
                self._fill_window()
            self._take_successes(succeeded)
        self._look_at_workers()

    def _take_successes(self, outcomes: list[Outcome]) -> None:
        records = [record for outcome in outcomes for record in outcome.records or ()]
        if records:
            self._on_records(records)
        for outcome in outcomes:
            if not self._frontier.complete(outcome.key):
                continue
            self._done += 1
            self._busy += outcome.seconds
            done = self._earlier + self._done
            event = TaskDone(
                outcome.key, tuple(outcome.records or ()), outcome.seconds, outcome.worker, done, self._total
            )
            self._tell(event)

    def _take_failure(self, outcome: Outcome) -> None:
        error = outcome.error or "unknown error"
        if outcome.transient and not outcome.charged:
            self._frontier.requeue(outcome.key)
            return
        if self._frontier.fail(outcome.key, error, outcome.transient):
            self._retries += 1
            self._tell(Retried(outcome.key, error, self._frontier.losses(outcome.key)))
        elif self._frontier.state(outcome.key) is State.FAILED:
            self._raised = self._raised or outcome.exception
            self._tracebacks.setdefault(error, outcome.traceback)
            self._tell(TaskFailed(outcome.key, error, outcome.traceback))

    def _drain(self) -> None:
        """No task begins any more; those that run get the grace time, and what they deliver is kept."""
        self._executor.cancel()
        deadline = time.monotonic() + self._grace
        while self._in_flight and not self._stop.urgent:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._turn(min(left, _TURN_SECONDS))

    def _look_at_workers(self) -> None:
        now = time.monotonic()
        if now - self._looked_at_workers < _TURN_SECONDS:
            return
        self._looked_at_workers = now
        workers = self._executor.workers()
        if workers != self._workers:
            self._workers = workers
            self._tell(WorkersChanged(tuple(workers)))

    def _raise_if_unfinished(self) -> None:
        counts = self._frontier.counts
        if self._raised is not None:
            raise self._raised
        if counts.failed:
            raise self._failure(counts.failed)
        if counts.done < self._total:
            raise self._stop.error(f"{counts.done:,} of {self._total:,} tasks are done and recorded")

    def _failure(self, failed: int) -> TasksFailed:
        """A table of the distinct messages, how many tasks each befell, and one task as an example."""
        failures = self._frontier.failures
        examples: dict[str, list[str]] = {}
        for key, failure in failures.items():
            times = f" ({failure.attempts} attempts)" if failure.transient else ""
            examples.setdefault(failure.error + times, []).append(key)
        lines = [f"{failed:,} of {self._total:,} tasks failed"]
        for error, keys in sorted(examples.items(), key=lambda item: -len(item[1])):
            lines.append(f"  {len(keys)} × {error}  [{keys[0]}{', …' if len(keys) > 1 else ''}]")
        if blocked := self._frontier.counts.blocked:
            lines.append(f"  {blocked:,} tasks wait for them in vain")
        error = TasksFailed(
            "\n".join(lines),
            hint="what finished is kept; with the cause removed, the same command again continues",
        )
        for text in filter(None, self._tracebacks.values()):
            error.add_note(text)
        return error
