"""One process at work on one run directory: its data, plan, store, lease, workers and progress, opened as needed."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import data
from pipeline.config.model import RunConfig
from pipeline.errors import GateError, InputError
from pipeline.plan.resources import Resources
from pipeline.plan.tasks import Record, Task, Tasks
from pipeline.plan.tiles import TileGrid
from pipeline.runtime.cluster import open_executor
from pipeline.runtime.counters import counters
from pipeline.runtime.drive import drive
from pipeline.runtime.events import Event, Finished, Started, Summary, TaskDone
from pipeline.runtime.executor import Work
from pipeline.stages import rundir
from pipeline.stages.depends import STAGE_OF, Depends, fingerprint
from pipeline.stages.kernels import KernelSpec
from pipeline.stages.worker import Stopwatch, stored_record
from pipeline.stages.workers import peak_memory, settings
from pipeline.store.arrays import ArrayStore, worker_name
from pipeline.store.files import replace_file
from pipeline.store.format import Compression
from pipeline.store.journal import Journal
from pipeline.store.layout import RunLayout
from pipeline.store.lease import Lease
from pipeline.store.place import Place


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a set of tasks is, in stored chunks; `event` is what just happened."""

    label: str
    total: int
    done: int = 0
    event: Event | None = None


@dataclass
class Session:
    """What every stage needs. Opened by `opening.open_session`; the workers start with the first task there is to do.

    `peak_memory` is the largest resident size seen of any worker, in bytes, as measured after each set of tasks;
    `insecure`: what leaves this machine need not be encrypted, because a person said so; `performance_report`: Dask's
    is written when the workers end.
    """

    config: RunConfig
    directory: Place
    inputs: data.Inputs
    spec: KernelSpec
    grid: TileGrid
    identity: Depends
    stages: dict[str, Depends]
    resources: Resources
    journal: Journal
    store: ArrayStore
    lease: Lease
    listener: Callable[[Progress], None] | None = None
    stop: Any = None
    peak_memory: int = 0
    on_workers: Callable[[Any], None] | None = None
    insecure: bool = False
    performance_report: bool = False
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _executor: Any = None
    _writer: Any = None

    @property
    def targets(self) -> np.ndarray:
        """Encoded training targets (n, outputs), of a run that has a regression.

        Raises:
            InputError: it has none.
        """
        if self.inputs.y_train is None:
            raise InputError("data.task is none: there are no targets to regress on")
        return self.inputs.y_train

    def fingerprint(self, stage: str) -> str:
        """Fingerprint of everything a stage's result depends on."""
        return fingerprint(self.stages[stage])

    def finished(self, stage: str) -> dict[str, Any] | None:
        """The metrics of a stage that is done for the present configuration, else None."""
        record = self.journal.stage(stage)
        if record is None or record.status != "done" or record.fingerprint != self.fingerprint(stage):
            return None
        return record.metrics["metrics"]

    def begin(self, stage: str) -> None:
        """Record that a stage is at work, before it changes anything. Over what another configuration left it says so:
        until it is done, what is stored is neither's."""
        record, now = self.journal.stage(stage), self.fingerprint(stage)
        if record is None:
            self.writer.stage(stage, now, "started", {"depends": self.stages[stage]})
        elif record.status != rundir.REPLACING and record.fingerprint != now:
            before = {"depends": record.metrics.get("depends", {})}
            self.writer.stage(stage, record.fingerprint, rundir.REPLACING, before)
        self.journal.refresh()

    def finish(self, stage: str, metrics: dict[str, Any]) -> dict[str, Any]:
        """Record that a stage is done, with its figures; returns them."""
        content = {"metrics": metrics, "depends": self.stages[stage], "peak_worker_bytes": self.peak_memory}
        self.writer.stage(stage, self.fingerprint(stage), "done", content)
        self.journal.refresh()
        return metrics

    def reopen(self, stages: Collection[str]) -> None:
        """Those of these stages that this run has are no longer done. Before their tiles go: a kill in between leaves
        nothing believed."""
        for stage in self.stages:
            if stage in stages:
                self.writer.stage(stage, self.fingerprint(stage), rundir.REPAIRING)

    def forget_missing(self) -> list[str]:
        """Void the records of arrays that are not in the store any more, whoever removed them, so that their stages
        make them again; returns their names."""
        names = RunLayout(self.directory).missing(self.journal.arrays())
        self.reopen({STAGE_OF[name.split("/")[0]] for name in names})
        for name in names:
            self.writer.invalidate(name)
        self.journal.refresh()
        return names

    def create(
        self,
        name: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        *,
        fingerprint: str,
        dtype: str = "float64",
        compression: Compression = "none",
        attributes: Mapping[str, Any] | None = None,
        dimensions: tuple[str, ...] | None = None,
    ) -> None:
        """An array in the store: kept when it is of the same spec and fingerprint, else made new and its records
        void. `attributes` (`units`, `long_name`) and `dimensions` are for those who open it."""
        self.lease.check()
        self.store.create(
            name, shape, chunks, dtype, compression=compression, fingerprint=fingerprint, attributes=attributes,
            dimensions=dimensions, writer=self.writer,
        )  # fmt: skip
        self.journal.refresh()

    def remove(self, name: str) -> None:
        """Forget an array and free its space."""
        self.lease.check()
        self.store.remove(name, self.writer)
        self.journal.refresh()

    def discard(self, name: str, keys: Sequence[tuple[int, ...]]) -> None:
        """Forget chunks, so that they are computed again; of an array whose metadata is damaged all of them."""
        self.lease.check()
        try:
            self.store.array(name)
        except InputError:
            self.store.remove(name, self.writer)
        else:
            self.store.discard(name, keys, self.writer)
        self.journal.refresh()

    def retire(self, chunks: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        """Forget chunks whose files others will be written over (`ArrayStore.write`), and remove them where none can
        be."""
        spent: dict[str, list[tuple[int, ...]]] = {}
        for name, key in chunks:
            spent.setdefault(name, []).append(key)
        if not spent:
            return
        if self.store.reuses_files:
            self.writer.invalidate_chunks(spent)
            self.journal.refresh()
        else:
            for name, keys in spent.items():
                self.discard(name, keys)

    def adopt(self, names: Iterable[str]) -> None:
        """Record the sound chunks that a killed process stored and did not live to record."""
        for name in names:
            orphans = self.store.unrecorded(name)
            adopted = [self.store.adopt(name, key) for key in orphans]
            self.record([record for record in adopted if record is not None])

    def run(
        self,
        tasks: Sequence[Task] | Tasks,
        work: Work,
        label: str,
        *,
        after: Callable[[], None] | None = None,
    ) -> Summary | None:
        """Run tasks on the workers; every record is in the journal before its task counts as done.

        `label` is what progress displays call it; `after` is called each time records were written.
        """
        if not tasks:
            return None
        chunks = tasks.chunks if isinstance(tasks, Tasks) else sum(len(task.writes) for task in tasks)
        progress = Progress(label, chunks)

        def on_records(records: list[Record]) -> None:
            self.record(records)
            if after is not None:
                after()

        def on_event(event: Event) -> None:
            nonlocal progress
            new = len(event.records) if isinstance(event, TaskDone) else 0
            progress = dataclasses.replace(progress, done=progress.done + new, event=event)
            if self.listener is not None:
                self.listener(progress)

        return self._drive(tasks, work, on_records, on_event)

    def collect(self, tasks: Sequence[Task], work: Work) -> list[Record]:
        """Run tasks that write scratch arrays; their records come back instead of going to the journal.

        A task that was lost with its worker and tried again may have returned its records twice.
        """
        records: list[Record] = []
        self._drive(tasks, work, records.extend, None)
        return records

    def _drive(
        self,
        tasks: Sequence[Task] | Tasks,
        work: Work,
        on_records: Callable[[list[Record]], None],
        listener: Callable[[Event], None] | None,
    ) -> Summary:
        counts = counters() if getattr(self.executor, "dashboard_link", None) else None

        def tell(event: Event) -> None:
            if counts is not None:
                counts.count(event)
            if listener is not None:
                listener(event)

        self.executor.bind(work)
        summary = drive(tasks, self.executor, on_records=on_records, listener=tell, stop=self.stop)
        self.peak_memory = max(
            self.peak_memory, *(peak_memory(worker["pid"]) for worker in self.executor.workers()), 0
        )
        return summary

    def require(self, stage: str) -> dict[str, Any]:
        """The metrics of an earlier stage.

        Raises:
            InputError: it is not done for this configuration.
        """
        metrics = self.finished(stage)
        if metrics is None:
            raise InputError(
                f"{self.directory}: the {stage} stage is not done for this configuration",
                hint=f"run `ntk {stage}` first, or `ntk run` for all stages",
            )
        return metrics

    def require_gates(self, stage: str, groups: dict[str, dict[str, Any]]) -> None:
        """Fail the stage when a gate did.

        Args:
            groups: gates as dicts by name, for each thing they judge.

        Raises:
            GateError: naming every gate that failed, its value and its limit.
        """
        failed = [
            f"{stage}: {group}: gate `{name}` failed: "
            + ("not a finite number" if gate["value"] is None else f"{gate['value']:.3g}")
            + f", the limit is {gate['limit']:.3g}"
            for group, gates in groups.items()
            for name, gate in gates.items()
            if not gate["passed"]
        ]
        if failed:
            raise GateError("\n".join(failed), hint="the figures cannot be trusted; see docs/accuracy.md")

    def record(self, records: Iterable[Record]) -> None:
        """Append records to the journal, if this process still holds the run."""
        self.writer.append(records)
        self.journal.refresh()

    def put(self, name: str, key: tuple[int, ...], block: Any, note: dict[str, Any] | None = None) -> None:
        """Write a chunk from this process, and its record."""
        self.record([stored_record(self.store, name, key, block, Stopwatch(), note=note)])

    @contextlib.contextmanager
    def counting(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """Progress of work that this process directs: yields what is told how much of `total` is done.

        Raises:
            Stopped, Interrupted: a stop was asked for, when it is told next.
        """
        began = time.perf_counter()

        def tell(event: Event, done: int) -> None:
            if self.listener is not None:
                self.listener(Progress(label, total, done, event))

        def count(done: int) -> None:
            tell(TaskDone(label, (), time.perf_counter() - began, worker_name(), done, total), done)
            if self.stop is not None and self.stop.is_set:
                raise self.stop.error(f"{label}: what is done is recorded")

        tell(Started(total, 0), 0)
        yield count
        seconds = time.perf_counter() - began
        tell(Finished(Summary(total, 0, 0, seconds, seconds)), total)

    def start_workers(self) -> None:
        """Let the workers start beside what this process does before their first task."""
        _ = self.executor

    @property
    def has_workers(self) -> bool:
        """Whether there was anything for workers to do yet."""
        return self._executor is not None

    @property
    def writer(self) -> Any:
        """The journal segment of this process."""
        if self._writer is None:
            self._writer = self._stack.enter_context(self.journal.writer(self.lease.check))
        return self._writer

    @property
    def executor(self) -> Any:
        """The workers, started at the first call."""
        if self._executor is None:
            chosen = settings(self.resources, RunLayout(self.directory).jobs, insecure=self.insecure)
            self._executor = self._stack.enter_context(open_executor(chosen))
            logs = RunLayout(self.directory).logs
            if isinstance(logs, Path):  # a bucket has no files that grow
                self._executor.log_to(logs)
            if self.performance_report:
                page = RunLayout(self.directory).performance_report
                self._executor.report_to(lambda text: replace_file(page, text.encode()))
            if self.on_workers is not None:
                self.on_workers(self._executor)
        return self._executor
