"""What a report may show. Everything but the title is optional; what is missing is left out of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray


class TimelineEntry(NamedTuple):
    """One finished task: who did it, when it started (seconds after the first), how long it took, its
    kind."""

    worker: str
    start: float
    seconds: float
    kind: str


@dataclass(frozen=True, slots=True)
class GramImage:
    """A Gram matrix, downsampled for the eye.

    Attributes:
        values: (m, m), m ≤ 512.
        rows: number of rows of the full matrix that the image spans.
        boundaries: rows of the full matrix where a new class begins, ascending, without 0 and `rows`; empty
        when
            rows are not sorted by label.
        labels: names of the classes between the boundaries, one more than `boundaries`; or empty.
    """

    values: NDArray[np.floating]
    rows: int
    boundaries: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Modes:
    """Leading eigenvectors of a kernel.

    Attributes:
        vectors: (rows, modes), of a sample of the rows.
        target: (rows,) of the same rows: the index of the class, or the first target; None without labels.
        images: (modes, height, width) Σ v_k(i) x_i over all rows, where inputs are images; else None.
    """

    vectors: NDArray[np.floating]
    target: NDArray[Any] | None = None
    images: NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True)
class ReportData:
    """The contents of a report.

    Attributes:
        title: heading of the page.
        subtitle: a line under it: data, architecture, precision.
        task: "classification", "regression" or "none".
        rows: training rows; `test_rows`: held-out rows.
        class_names: in the order of the columns of `label_power`.
        metrics: the contents of ``metrics.json``. Gates (``{"value", "limit", "passed"}``) are found
        wherever they
            stand. Of ``spectrum.KERNEL`` also ``noise_floor``, ``condition_number_resolved``,
            ``participation_ratio`` and ``stable_rank`` are shown.
        eigenvalues: {kernel: (n,), descending}.
        label_power: {kernel: (modes, classes)}, squared projections of the labels on the eigenvectors.
        gram_image: {kernel: image}.
        dynamics: {kernel: (3, times)}: time, error on the rows trained on, error on those held out.
        modes: {kernel: leading eigenvectors}.
        timeline: tasks of all stages.
        wall_seconds: of the whole run, from start to end.
        provenance: name → text, number, or a mapping of these (versions, fingerprints …).
        run_yaml: the resolved configuration.
    """

    title: str
    subtitle: str = ""
    task: Literal["classification", "regression", "none"] = "none"
    rows: int | None = None
    test_rows: int | None = None
    class_names: tuple[str, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    eigenvalues: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    label_power: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    gram_image: Mapping[str, GramImage] = field(default_factory=dict)
    dynamics: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    modes: Mapping[str, Modes] = field(default_factory=dict)
    timeline: Sequence[TimelineEntry] = ()
    wall_seconds: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    run_yaml: str = ""
