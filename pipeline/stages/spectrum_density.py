"""How many eigenvalues of a Gram matrix lie where, at any size: stochastic Lanczos quadrature over streamed products.

`ntk.linalg.quadrature` has the mathematics. The vectors of each step are stored with its coefficients, so that a killed
run goes on at its last pass; what is kept are the quadratures, from which traces of any function follow.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from ntk.linalg import quadrature
from ntk.linalg.gates import Gate
from ntk.linalg.quadrature import Estimate, LanczosCoefficients, Quadrature
from ntk.spectral.stability import noise_floor
from pipeline.stages.operator import stored_operator
from pipeline.stages.session import Session
from pipeline.stages.spectrum_arrays import (
    QUADRATURE_NODES,
    Found,
    Request,
    is_stored,
    make_spectrum_array,
    spectrum_array,
)
from pipeline.stages.worker import Stopwatch, stored_record
from pipeline.store.scratch import PASSING

THRESHOLDS = 60
"""Points at which the number of larger eigenvalues is given, evenly spaced in log λ from the noise floor to λ_max."""

DEVIATIONS = 3.0
"""The known traces tr K and ‖K‖²_F must lie within this many half widths of their 95 % intervals: a correct run fails
by chance once in 10,000."""


def decompose(session: Session, request: Request) -> Found:
    """Store the quadratures of a kernel's probes; counts, log determinants and dimensions come from them.

    Raises:
        TasksFailed, Stopped: see there; a rerun resumes.
    """
    if not is_stored(session, request):
        found = _run(session, request)
        assert found.radau is not None
        rules = found.nodes, found.weights, *found.radau
        for what, values in zip(request.stores, rules, strict=True):
            session.put(make_spectrum_array(session, request, what, values.shape), (0, 0), values)
        session.remove(_vectors(request.kernel))
    nodes, weights, *radau = (
        session.store.read_all(spectrum_array(request.kernel, what)) for what in request.stores
    )
    return _answer(session, request, Quadrature(nodes, weights, session.grid.n, (radau[0], radau[1])))


def _vectors(kernel: str) -> str:
    return f"{PASSING}/{kernel}-density"


def _run(session: Session, request: Request) -> Quadrature:
    """All steps that are left, one pass over the matrix each."""
    n, wanted = session.grid.n, session.config.spectrum
    steps, name = min(wanted.steps, n), _vectors(request.kernel)
    session.create(
        name,
        (steps + 1, n, wanted.probes),
        (1, n, wanted.probes),
        fingerprint=request.print_of(QUADRATURE_NODES),
    )
    operator = stored_operator(session, request.kernel, "spectrum")

    def read(index: int) -> np.ndarray:
        return session.store.view(name, (index, 0, 0))[0]

    records = session.journal.records(name)
    done = next(index for index in itertools.count() if (index, 0, 0) not in records)
    if done == 0:
        session.put(name, (0, 0, 0), quadrature.probes(n, wanted.probes)[None])
        done = 1
    notes = [records[index, 0, 0].note for index in range(1, done)]
    empty = np.empty((0, wanted.probes))
    coefficients = LanczosCoefficients(
        np.array([note["alpha"] for note in notes]) if notes else empty,
        np.array([note["beta"] for note in notes]) if notes else empty,
    )
    for at in range(done - 1, steps):
        vectors = read(at)
        products = operator.matvec(vectors)
        alpha, beta, following = quadrature.step(
            lambda at=at: (read(index) for index in range(at)), vectors, products, request.frobenius
        )
        coefficients = coefficients.extended(alpha, beta)
        note = {"alpha": alpha.tolist(), "beta": beta.tolist()}
        session.record(
            [stored_record(session.store, name, (at + 1, 0, 0), following[None], Stopwatch(), note=note)]
        )
    return quadrature.quadrature(coefficients, n)


def _answer(session: Session, request: Request, found: Quadrature) -> Found:
    n, precision = session.grid.n, session.spec.precision
    largest, smallest = float(found.nodes.max()), float(found.nodes.min())
    floor = noise_floor(largest, n, precision)
    gates = {
        "trace": _statistical_gate(found.trace(lambda theta: theta), request.trace),
        "frobenius": _statistical_gate(found.trace(np.square), request.frobenius**2),
    }
    figures: dict[str, Any] = {
        "passes": found.nodes.shape[1],
        "probes": len(found.nodes),
        # A node is a Ritz value: below it there is an eigenvalue.
        "indefinite": smallest < -floor,
    }
    if largest > floor:
        thresholds = np.geomspace(floor, largest, THRESHOLDS)
        counts = found.count_above(thresholds)
        figures["counts"] = {
            "threshold": thresholds.tolist(),
            "larger": counts.value.tolist(),
            "half_width": counts.half_width.tolist(),
        }
    figures |= _ridge_figures(session, request, found)
    return Found(gates, lambda_max=largest, figures=figures)


def _ridge_figures(session: Session, request: Request, found: Quadrature) -> dict[str, Any]:
    """log det(K + λI) and d(λ) for every ridge, with half widths."""
    ridges = [ridge for ridge in session.config.solve.ridge if ridge > 0]
    shifts = np.array(ridges) * request.trace / session.grid.n
    if not ridges or not shifts[0] > 0:
        return {}

    def modes(theta: np.ndarray) -> np.ndarray:
        return np.maximum(theta, 0.0)[..., None]

    logs = found.concave_trace(lambda theta: np.log(modes(theta) + shifts))
    dimensions = found.concave_trace(lambda theta: modes(theta) / (modes(theta) + shifts))
    return {"log_determinant": _rows(ridges, logs), "effective_dimension": _rows(ridges, dimensions)}


def _rows(ridges: list[float], found: Estimate) -> list[dict[str, float]]:
    return [
        {"ridge": ridge, "value": float(value), "half_width": float(half)}
        for ridge, value, half in zip(ridges, found.value, found.half_width, strict=True)
    ]


def _statistical_gate(found: Estimate, exact: float) -> dict[str, Any]:
    """|estimate − exact| / (half width + rounding) < 3."""
    rounding = math.sqrt(np.finfo(np.float64).eps) * abs(exact)
    return Gate(abs(float(found.value) - exact) / (float(found.half_width) + rounding), DEVIATIONS).to_dict()
