"""The report stage: one self-contained HTML page of everything the finished stages found."""

from __future__ import annotations

import platform
import socket
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plan.gram import gram_array
from pipeline.report import render
from pipeline.report.data import GramImage, Modes, ReportData, TimelineEntry
from pipeline.stages import rundir
from pipeline.stages.depends import STAGE_OF, STAGES
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import EIGENVALUES, EIGENVECTORS, LABEL_POWER, spectrum_array
from pipeline.stages.spectrum_meaning import FLOW, flow_array
from pipeline.store.layout import RunLayout

MODE_ROWS = 600
"""Rows drawn as points of an eigenvector plot; of more an even sample."""
SHOWN_MODES = 8
IMAGE_AXES = (2, 3)
"""Axes of an input that is an image: height, width and perhaps channels."""
IMAGE_ROWS = 384
"""Rows of the heat map; of a larger matrix an even sample of rows is shown."""


def run(session: Session) -> dict[str, Any]:
    """Write report.html; returns the stage's metrics.

    Raises:
        InputError: the disk refuses.
    """
    finished = session.finished("report")
    if finished is not None and RunLayout(session.directory).report.exists():
        return finished
    metrics = {
        name: found
        for name in STAGES
        if name in session.stages and name != "report" and (found := session.finished(name)) is not None
    }
    kernels = session.config.kernel.get if "gram" in metrics else ()
    spectra = kernels if "spectrum" in metrics else ()
    inputs, config = session.inputs, session.config
    timeline = _timeline(session)
    page = render(
        ReportData(
            title=session.directory.resolve().name,
            subtitle=_subtitle(session),
            task=config.data.task,
            rows=session.grid.n,
            test_rows=len(inputs.x_test),
            class_names=inputs.classes,
            metrics=metrics,
            eigenvalues={
                kernel: values for kernel in spectra if len(values := _stored(session, kernel, EIGENVALUES))
            },
            label_power={
                kernel: power
                for kernel in spectra
                # The labels' power in some of the modes would be drawn as if it were all of it.
                if len(power := _stored(session, kernel, LABEL_POWER)) == session.grid.n
            },
            gram_image={kernel: _image(session, gram_array(kernel)) for kernel in kernels},
            dynamics={
                kernel: np.stack([session.store.read_all(flow_array(kernel, what)) for what in FLOW])
                for kernel in spectra
                if session.journal.records(flow_array(kernel, "time"))
            },
            modes={kernel: modes for kernel in spectra if (modes := _modes(session, kernel)) is not None},
            timeline=timeline,
            wall_seconds=max((entry.start + entry.seconds for entry in timeline), default=None),
            provenance=_provenance(session),
            run_yaml=RunLayout(session.directory).config.read_text(encoding="utf-8"),
        )
    )
    rundir.replace_text(RunLayout(session.directory).report, page)
    # A page over unfinished stages is written, but not called done: the next run writes it again.
    complete = len(metrics) == sum(name != "report" for name in session.stages)
    return session.finish("report", {"bytes": len(page)}) if complete else {"bytes": len(page)}


def _stored(session: Session, kernel: str, what: str) -> np.ndarray:
    """An array of a kernel's spectrum; empty when the method that was used does not give it."""
    name = spectrum_array(kernel, what)
    return session.store.read_all(name) if session.journal.records(name) else np.empty(0)


def _subtitle(session: Session) -> str:
    origin = session.config.data.train
    source = origin.source or Path(origin.x or "").name
    get = " and ".join(kernel.upper() for kernel in session.config.kernel.get)
    return f"{get} of {source}, {session.spec.precision}"


def _image(session: Session, name: str) -> GramImage:
    """K[rows][:, rows] for an even sample of rows, in classification sorted by class; each tile is read once."""
    n, tile, y = session.grid.n, session.grid.tile, session.inputs.y_train
    classes = session.inputs.classes
    rows = np.unique(np.linspace(0, n - 1, min(n, IMAGE_ROWS)).round().astype(int))
    boundaries: tuple[int, ...] = ()
    if y is not None and classes:
        label = y[rows].argmax(axis=1)
        rows = rows[np.argsort(label, kind="stable")]
        starts = np.searchsorted(np.sort(label), np.arange(1, len(classes)))
        boundaries = tuple(int(start) for start in starts)
    block, inside = rows // tile, rows % tile
    image = np.empty((len(rows), len(rows)), np.float32)
    for i, j in session.grid.upper():
        at_i, at_j = np.flatnonzero(block == i), np.flatnonzero(block == j)
        if len(at_i) and len(at_j):
            part = session.store.read(name, (i, j))[np.ix_(inside[at_i], inside[at_j])]
            image[np.ix_(at_i, at_j)] = part
            image[np.ix_(at_j, at_i)] = part.T
    return GramImage(image, len(rows), boundaries, classes if boundaries else ())


def _modes(session: Session, kernel: str) -> Modes | None:
    """The leading eigenvectors, where they are stored; of images what each stands for."""
    inputs, vectors = session.inputs, _stored(session, kernel, EIGENVECTORS)
    if not vectors.size:
        return None
    vectors = vectors[:, :SHOWN_MODES]
    n = len(vectors)
    rows = np.unique(np.linspace(0, n - 1, min(n, MODE_ROWS)).round().astype(int))
    target = None
    if (y := inputs.y_train) is not None:
        target = y[rows].argmax(axis=1) if inputs.classes else y[rows, 0]
    images = None
    if len(inputs.input_shape) in IMAGE_AXES:
        images = np.tensordot(vectors, inputs.x_train, axes=(0, 0))
        images = images.mean(axis=-1) if images.ndim == 4 else images
    return Modes(vectors[rows], target, images)


def _timeline(session: Session) -> list[TimelineEntry]:
    """Every stored chunk, in seconds from the first."""
    records = [
        record for name in session.journal.arrays() for record in session.journal.records(name).values()
    ]
    records = [record for record in records if record.seconds > 0]
    first = min((record.started for record in records), default=0.0)
    return [
        TimelineEntry(
            record.worker, record.started - first, record.seconds, STAGE_OF[record.array.split("/")[0]]
        )
        for record in sorted(records, key=lambda record: record.started)
    ]


def _provenance(session: Session) -> dict[str, Any]:
    resources = session.resources
    return {
        "depends on": dict(session.identity),
        "versions": rundir.versions(),
        "host": socket.gethostname(),
        "system": platform.platform(),
        "workers": f"{resources.workers} × {resources.threads} threads ({resources.kind})",
    }
