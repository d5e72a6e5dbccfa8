"""Names of the files inside a run directory; they stand here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Where things are in a run directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, with versions and fingerprints."""
        return self.directory / "run.yaml"

    @property
    def store(self) -> Path:
        """The Zarr group."""
        return self.directory / "store.zarr"

    @property
    def journal(self) -> Path:
        """Directory of the journal's segments."""
        return self.directory / "journal"

    @property
    def leases(self) -> Path:
        """Directory that says who may write."""
        return self.directory / "leases"

    @property
    def jobs(self) -> Path:
        """What a batch system's jobs need and leave: scripts, their configuration, logs, the run's keys."""
        return self.directory / "jobs"

    @property
    def job_history(self) -> Path:
        """Jobs and their attempts, one JSON document a line, appended to."""
        return self.jobs / "history.jsonl"

    @property
    def metrics(self) -> Path:
        """Every figure that the report shows."""
        return self.directory / "metrics.json"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"
