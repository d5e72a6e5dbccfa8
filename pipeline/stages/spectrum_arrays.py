"""What the methods of the spectrum stage have in common: names of arrays, what they are asked and what they answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ntk.linalg.gates import frobenius_gate, trace_gate
from pipeline.stages.depends import fingerprint, spectrum_parts
from pipeline.stages.session import Session

EIGENVALUES, EIGENVECTORS, LABEL_POWER = "eigenvalues", "eigenvectors", "label-power"
SMALLEST_EIGENVALUES, SMALLEST_EIGENVECTORS = "smallest-eigenvalues", "smallest-eigenvectors"
INERTIA_COUNT = "inertia-count"
QUADRATURE_NODES, QUADRATURE_WEIGHTS = "quadrature-nodes", "quadrature-weights"
RADAU_NODES, RADAU_WEIGHTS = "quadrature-radau-nodes", "quadrature-radau-weights"
LABEL_ALIGNMENT, SAMPLE = "label-alignment", "sample"


def spectrum_array(kernel: str, what: str) -> str:
    """Name of an array of a kernel's spectrum: `eigenvalues`, `eigenvectors`, `density` …"""
    return f"spectrum/{kernel}/{what}"


AXES: dict[str, tuple[str, ...]] = {
    EIGENVALUES: ("mode",),
    EIGENVECTORS: ("row", "vector"),
    LABEL_POWER: ("mode", "output"),
    f"{LABEL_POWER} of vectors": ("vector", "output"),
    SMALLEST_EIGENVALUES: ("last",),
    SMALLEST_EIGENVECTORS: ("row", "last"),
    INERTIA_COUNT: ("shift",),
    QUADRATURE_NODES: ("probe", "node"),
    QUADRATURE_WEIGHTS: ("probe", "node"),
    RADAU_NODES: ("probe", "radau_node"),
    RADAU_WEIGHTS: ("probe", "radau_node"),
    LABEL_ALIGNMENT: ("matrix",),
    SAMPLE: ("sampled_row", "sampled_column"),
}
"""Names of the axes, for xarray, which wants equal names to have equal lengths: eigenvectors, and label power found
from them, may be of fewer modes than the eigenvalues."""


PARTS = {
    LABEL_POWER: "labels",
    LABEL_ALIGNMENT: "labels",
    SMALLEST_EIGENVALUES: "smallest",
    SMALLEST_EIGENVECTORS: "smallest",
    SAMPLE: "sample",
}
"""Which part of the spectrum (`depends.spectrum_parts`) an array belongs to, if not to the decomposition."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of one kernel's matrix K.

    Attributes:
        kernel: ntk or nngp.
        method: eigh, band, lanczos or density.
        count: leading eigenvalues to store.
        vectors: leading eigenvectors to store, not more than `count`.
        trace: tr K.
        frobenius: ‖K‖_F.
        labels: whether there are labels whose power in each mode is wanted.
        rows: of the sample of the matrix from which curves are made, 0 for none.
        prints: fingerprints of the parts of the spectrum.
    """

    kernel: str
    method: str
    count: int
    vectors: int
    trace: float
    frobenius: float
    labels: bool
    rows: int
    prints: dict[str, str]

    def print_of(self, what: str) -> str:
        """The fingerprint of an array."""
        return self.prints[PARTS.get(what, "decomposition")]

    @property
    def stores(self) -> tuple[str, ...]:
        """The arrays that the method stores."""
        if self.method == "density":
            return QUADRATURE_NODES, QUADRATURE_WEIGHTS, RADAU_NODES, RADAU_WEIGHTS
        # Of all eigenvectors only the leading ones are stored, so that the labels meet the others in `eigh` itself.
        power = self.labels and self.method == "eigh"
        return EIGENVALUES, *[EIGENVECTORS] * (self.vectors > 0), *[LABEL_POWER] * power


def prints(session: Session, method: str, rows: int) -> dict[str, str]:
    """Fingerprints of the parts of a kernel's spectrum found by a method."""
    parts = spectrum_parts(session.stages["spectrum"], session.identity, method, rows)
    return {part: fingerprint(fields) for part, fields in parts.items()}


def is_stored(session: Session, request: Request) -> bool:
    """Whether all that the method stores is there."""
    names = {what: spectrum_array(request.kernel, what) for what in request.stores}
    return all(session.journal.records(name) for name in names.values()) and all(
        session.store.array(name).attrs["fingerprint"] == request.print_of(what)
        for what, name in names.items()
    )


def make_spectrum_array(
    session: Session, request: Request, what: str, shape: tuple[int, ...], *, axes: str | None = None
) -> str:
    """An array of one chunk with named axes (those of `what`, or of another entry of `AXES`); returns its name."""
    name = spectrum_array(request.kernel, what)
    session.create(name, shape, shape, fingerprint=request.print_of(what), dimensions=AXES[axes or what])
    return name


@dataclass(frozen=True, slots=True)
class Found:
    """What a method says of one kernel, beside the arrays it stored.

    Attributes:
        gates: residuals by name, as dicts.
        lambda_min: the smallest eigenvalue, where the method knows it.
        lambda_max: the largest, where no eigenvalues are stored.
        figures: JSON values that only this method has.
    """

    gates: dict[str, Any]
    lambda_min: float | None = None
    lambda_max: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)


def all_values_note(values: np.ndarray, trace: float, frobenius: float) -> dict[str, Any]:
    """What is to be kept of all n eigenvalues, descending, though perhaps not all are stored."""
    return {
        "lambda_min": float(values[-1]),
        "gates": {
            "trace": trace_gate(values, trace=trace, dtype=np.float64).to_dict(),
            "frobenius": frobenius_gate(values, frobenius=frobenius, dtype=np.float64).to_dict(),
        },
    }
