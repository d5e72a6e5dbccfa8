"""The spectrum stage: eigenvalues of each stored Gram matrix and what they say about training and generalisation.

A method (`spectrum_eigh`, `spectrum_band` …) stores arrays and answers with its gates; here the method is chosen, and
the figures of all methods are made from what is stored.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from ntk.spectral.alignment import (
    alignment_from_products,
    centred_squares,
    cumulative_label_power,
    label_power,
)
from ntk.spectral.effective_dimension import effective_dimension
from ntk.spectral.power_law import fit_power_law
from ntk.spectral.stability import condition_number, max_learning_rate, noise_floor
from pipeline.documents import finite
from pipeline.errors import GateError, InputError
from pipeline.plan import memory_spectrum
from pipeline.plan.spectrum import Matrix, resolve_method
from pipeline.stages import (
    spectrum_band,
    spectrum_density,
    spectrum_eigh,
    spectrum_lanczos,
    spectrum_meaning,
    spectrum_smallest,
)
from pipeline.stages.inputs import store_inputs
from pipeline.stages.operator import stored_operator
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    EIGENVALUES,
    EIGENVECTORS,
    LABEL_ALIGNMENT,
    LABEL_POWER,
    Found,
    Request,
    is_stored,
    make_spectrum_array,
    prints,
    spectrum_array,
)

METHODS = {
    "eigh": spectrum_eigh.decompose,
    "band": spectrum_band.decompose,
    "lanczos": spectrum_lanczos.decompose,
    "density": spectrum_density.decompose,
}

HALF_POWER = 0.5


def run(session: Session) -> dict[str, Any]:
    """Find the spectrum of every stored kernel; returns the metrics.

    Raises:
        InputError: the gram stage is not done, or no method fits into the workers' memory.
        GateError: a residual is too large.
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    finished = session.finished("spectrum")
    if finished is not None:
        return finished
    store_inputs(session)
    gram, config = session.require("gram"), session.config
    itemsize = np.dtype(session.spec.precision).itemsize
    matrix = Matrix(session.grid, itemsize, len(config.kernel.get))
    plan = resolve_method(config.spectrum, matrix, session.resources)
    if plan.skipped:
        raise InputError(f"spectrum: {plan.skipped}", hint="allow a worker more memory in cluster.yaml")
    requests = [_request(session, kernel, plan.method, gram[kernel]) for kernel in config.kernel.get]
    _remove_stale(session, requests)
    metrics: dict[str, Any] = {}
    for request in requests:
        kernel, method = request.kernel, request.method
        found = METHODS[method](session, request)
        session.require_gates("spectrum", {kernel: found.gates})
        metrics[kernel] = {"method": method} | _figures(session, request, found)
        metrics[kernel] |= spectrum_meaning.certificate(method, found.gates, metrics[kernel]["lambda_max"])
        metrics[kernel] |= _smallest_figures(session, request, metrics[kernel])
        # With a matrix that is no kernel there is no regression.
        if not metrics[kernel].get("indefinite"):
            metrics[kernel] |= spectrum_meaning.figures(session, request)
    return session.finish("spectrum", metrics)


def _request(session: Session, kernel: str, resolved: str, gram: dict[str, Any]) -> Request:
    """What is wanted of a kernel, by the method that `spectrum.method` was resolved to.

    `auto` stays with what is stored: it may have been found on machines where another method fits than on these.
    """
    wanted, n = session.config.spectrum, session.grid.n
    count = n if wanted.count == "all" else min(wanted.count, n)
    rows = memory_spectrum.population_rows(n, session.resources.memory)

    def by(method: str) -> Request:
        return Request(
            kernel, method, count, min(wanted.vectors, count), gram["trace"], gram["frobenius_norm"],
            session.inputs.y_train is not None, rows, prints(session, method, rows),
        )  # fmt: skip

    kept = (request for request in map(by, METHODS) if is_stored(session, request))
    return next(kept, by(resolved)) if wanted.method == "auto" else by(resolved)


def _remove_stale(session: Session, requests: list[Request]) -> None:
    """Remove what was found with other settings, labels or ridges, or of a kernel that is no longer wanted: a method
    looks for records only under the present ones."""
    current = {request.kernel: request.prints.values() for request in requests}
    for name in session.store.names():
        folder, kernel, *_ = name.split("/")
        if folder == "spectrum" and session.store.array(name).attrs["fingerprint"] not in current.get(
            kernel, ()
        ):
            session.remove(name)


def _figures(session: Session, request: Request, found: Found) -> dict[str, Any]:
    """What the eigenvalues of one kernel say."""
    kernel, n, precision = request.kernel, session.grid.n, session.spec.precision
    name = spectrum_array(kernel, EIGENVALUES)
    # A density has no single eigenvalues.
    values = session.store.read_all(name) if found.lambda_max is None else np.empty(0)
    largest = float(values[0]) if found.lambda_max is None else found.lambda_max
    floor = noise_floor(largest, n, precision)
    if not largest > floor:
        raise GateError(
            f"spectrum: {kernel}: the Gram matrix is zero up to rounding (largest eigenvalue {largest:.3g})",
            hint="look at the inputs and at the weight variances of the architecture",
        )
    figures: dict[str, Any] = {
        "lambda_max": largest,
        "noise_floor": floor,
        "max_learning_rate": max_learning_rate(largest),
        # (Σλ)² / Σλ² and Σλ² / ‖K‖² of all n eigenvalues, found or not.
        "participation_ratio": request.trace**2 / request.frobenius**2,
        "stable_rank": request.frobenius**2 / max(largest, -(found.lambda_min or 0.0)) ** 2,
        "gates": found.gates,
    }
    if found.lambda_min is not None:
        figures |= _lower_end(found.lambda_min, largest, floor)
    law = fit_power_law(values, floor) if len(values) else None
    figures["power_law"] = None if law is None else asdict(law)
    if len(values) == n:
        ridges = session.config.solve.ridge
        shifts = np.array(ridges) * request.trace / n
        dimensions = effective_dimension(values, shifts, floor)
        figures["effective_dimension"] = [
            {"ridge": r, "value": float(d)} for r, d in zip(ridges, dimensions, strict=True)
        ]
    return figures | found.figures | _label_figures(session, request)


def _smallest_figures(session: Session, request: Request, known: dict[str, Any]) -> dict[str, Any]:
    """The smallest pairs, if wanted, and what they say where the method itself has not found the lower end."""
    largest = known["lambda_max"]
    figures = spectrum_smallest.figures(session, request, largest)
    if figures:
        found = figures["smallest"]
        error = spectrum_meaning.certificate("lanczos", {"pairs": found["smallest pairs"]}, largest)
        figures["lambda_error"] = max(known.get("lambda_error", 0.0), error["lambda_error"])
        if "lambda_min" not in known:
            figures |= _lower_end(found["least"], largest, known["noise_floor"])
    return figures


def _lower_end(lambda_min: float, largest: float, floor: float) -> dict[str, Any]:
    condition = condition_number(np.array([largest, lambda_min]), floor)
    return {
        "lambda_min": lambda_min,
        "condition_number": condition.value,
        "condition_number_resolved": condition.resolved,
        "indefinite": lambda_min < -floor,
    }


def _label_figures(session: Session, request: Request) -> dict[str, Any]:
    """How the labels lie in the leading modes, and how well the whole kernel fits them."""
    y = session.inputs.y_train
    if y is None:
        return {}
    n, name = session.grid.n, spectrum_array(request.kernel, LABEL_POWER)
    vectors_name = spectrum_array(request.kernel, EIGENVECTORS)
    if not session.journal.records(name) and session.journal.records(vectors_name):
        vectors = session.store.read_all(vectors_name)
        power = label_power(vectors, y)
        make_spectrum_array(session, request, LABEL_POWER, power.shape, axes=f"{LABEL_POWER} of vectors")
        session.put(name, (0, 0), power)
    alignment = make_spectrum_array(session, request, LABEL_ALIGNMENT, (1,))
    if session.journal.latest(alignment, (0,)) is None:
        probes = np.column_stack([np.full(n, 1 / math.sqrt(n)), y - y.mean(axis=0)])
        operator, grid = stored_operator(session, request.kernel, "spectrum"), session.grid

        def squares(means: np.ndarray) -> float:
            return centred_squares(
                ((grid.rows(i), grid.rows(j), operator.block(i, j)) for i, j in grid.upper()), means
            )

        value = alignment_from_products(probes, operator.matvec(probes), request.frobenius, squares)
        session.put(alignment, (0,), np.array([value]))
    fit = float(session.store.read_all(alignment)[0])
    figures: dict[str, Any] = {"label_alignment": finite(fit)}
    if session.journal.records(name):
        power = session.store.read_all(name).sum(axis=1)
        shares = cumulative_label_power(power[:, None], np.array([float(np.sum(y**2))]))[:, 0]
        reached = np.flatnonzero(shares >= HALF_POWER)
        figures["modes_for_half_label_power"] = int(reached[0]) + 1 if len(reached) else None
    return figures
