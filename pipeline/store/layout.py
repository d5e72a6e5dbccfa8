"""Names of the files inside a run directory; they stand here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.store.place import Place


@dataclass(frozen=True, slots=True)
class RunLayout[Where: Place]:
    """Where things are in a run directory."""

    directory: Where

    @property
    def config(self) -> Where:
        """The resolved configuration, with versions and fingerprints."""
        return self._below("run.yaml")

    @property
    def store(self) -> Where:
        """The Zarr group."""
        return self._below("store.zarr")

    @property
    def journal(self) -> Where:
        """Directory of the journal's segments."""
        return self._below("journal")

    @property
    def leases(self) -> Where:
        """Directory that says who may write."""
        return self._below("leases")

    @property
    def jobs(self) -> Where:
        """What a batch system's jobs need and leave: scripts, their configuration, logs, the run's keys."""
        return self._below("jobs")

    @property
    def job_history(self) -> Where:
        """Jobs and their attempts, one JSON document a line, appended to."""
        return self._below(f"{self.jobs.name}/history.jsonl")

    @property
    def logs(self) -> Where:
        """What each worker did, one file for each process, one JSON document a line."""
        return self._below("logs")

    @property
    def metrics(self) -> Where:
        """Every figure that the report shows."""
        return self._below("metrics.json")

    @property
    def report(self) -> Where:
        return self._below("report.html")

    @property
    def performance_report(self) -> Where:
        """Dask's report on the workers of the last process that was asked for one."""
        return self._below("performance-report.html")

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of these arrays of which nothing is in the store."""
        return [name for name in names if not (self.store / name / "zarr.json").exists()]

    def _below(self, name: str) -> Where:
        return self.directory / name  # pyright: ignore[reportReturnType]
