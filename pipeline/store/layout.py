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
    def metrics(self) -> Path:
        """Every figure that the report shows."""
        return self.directory / "metrics.json"

    @property
    def report(self) -> Path:
        return self.directory / "report.html"
