"""What came of a drive."""

from __future__ import annotations

from pipeline.plan.tasks import Record, Task
from pipeline.runtime.drive import drive
from pipeline.runtime.events import Event, Summary
from pipeline.runtime.executor import Executor


class Driven:
    """Drives tasks and keeps what came of it, however it ended."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.batches: list[int] = []
        self.events: list[Event] = []

    def run(self, tasks: list[Task], executor: Executor, **options: object) -> Summary:
        return drive(tasks, executor, on_records=self._record, listener=self.events.append, **options)  # type: ignore[arg-type]

    def _record(self, records: list[Record]) -> None:
        self.records += records
        self.batches.append(len(records))

    @property
    def values(self) -> dict[str, object]:
        return {record.task: record.note["value"] for record in self.records}

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]
