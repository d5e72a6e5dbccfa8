"""Networks that trained for a finite time: coefficients of gradient flow on the regressed kernel, without a ridge.

f_t(x) = K(x, X) α(t), α(t) = K⁻¹ (I − e^{−Kτ}) Y with τ = t / Y.size, by Lanczos steps that the workers multiply for
and this process orthogonalises (`ntk.linalg.matrix_functions`).
"""

from __future__ import annotations

import numpy as np
from numpy.linalg import LinAlgError

from ntk.linalg.matrix_functions import gradient_flow
from pipeline.errors import GateError
from pipeline.plan.memory_solve import FLOW_STEPS
from pipeline.stages.operator import stored_operator
from pipeline.stages.session import Session
from pipeline.stages.worker import Stopwatch, stored_record

FLOW = "predictions/flow"
"""The coefficients α of every training time, (times, n, outputs), one chunk for each time."""
TOLERANCE = 1e-6
"""Relative error of the coefficients that is promised for each output at each time."""

_SHORTER = "leave out the longest times: a network trained that long is close to a small ridge"


def store_flow(session: Session) -> list[float]:
    """Compute the coefficients for `predict.times` where they are not stored; returns the relative error bound of each.

    Raises:
        GateError: the steps that fit the plan, or float64, do not reach the accuracy promised; or the matrix has a
            negative eigenvalue.
        TasksFailed, Stopped: from the products.
    """
    times, y = session.config.predict.times, session.targets
    session.create(FLOW, (len(times), *y.shape), (1, *y.shape), fingerprint=session.fingerprint("predict"))
    records = session.journal.records(FLOW)
    if len(records) < len(times):
        watch = Stopwatch()
        operator = stored_operator(session, session.config.solve_kernel, "gram")
        tau = np.array(times) / y.size
        # Half of what is promised, because converged to it and below it are two things.
        limits = {"tolerance": TOLERANCE / 2, "max_products": FLOW_STEPS}
        try:
            flow = gradient_flow(operator.matvec, y, tau, **limits)
        except LinAlgError as error:
            message = str(error).partition("\nhint: ")[0]
            raise GateError(
                f"predict.times: {message}",
                hint=f"{_SHORTER}, or take precision: float64",
            ) from error
        lengths = np.linalg.norm(flow.coefficients, axis=1)
        bounds = np.divide(flow.bounds, lengths, out=np.zeros_like(lengths), where=lengths > 0).max(axis=1)
        if not (flow.converged and bounds.max() < TOLERANCE):
            worst = int(np.argmax(bounds))
            raise GateError(
                f"predict.times: after {flow.products} products with the matrix the coefficients at time "
                f"{times[worst]:g} are known to {bounds[worst]:.2g} only, {TOLERANCE:g} is promised",
                hint=_SHORTER,
            )
        for index, alpha in enumerate(flow.coefficients):
            note = {"error_bound": float(bounds[index]), "products": flow.products}
            session.record(
                [stored_record(session.store, FLOW, (index, 0, 0), alpha[None], watch, "flow", note)]
            )
        records = session.journal.records(FLOW)
    return [records[index, 0, 0].note["error_bound"] for index in range(len(times))]
