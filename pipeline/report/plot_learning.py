"""Learning: the predicted against the measured learning curve, and errors during training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray

from pipeline.report import canvas
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure, identifier, kernel_title
from pipeline.report.numbers import percent, quantity, setting


def learning_figures(data: ReportData) -> list[ReportFigure]:
    """For each kernel its learning curve and its training, where they were computed."""
    figures = []
    for kernel, metrics in data.metrics.get("spectrum", {}).items():
        curve = metrics.get("learning_curve")
        if curve and max(curve["measured"]) > 0:
            figures.append(_curve(kernel, curve, int(metrics["sample_rows"])))
        flow = data.dynamics.get(kernel)
        if flow is not None and np.any(flow[1] > 0):
            figures.append(_training(kernel, flow, metrics))
    return figures


def _curve(kernel: str, curve: Mapping[str, Any], rows: int) -> ReportFigure:
    sizes = np.array(curve["size"])
    figure, axes = canvas.half_logarithmic()
    axes.plot(sizes, curve["predicted"], color=canvas.SERIES[0], linewidth=2, label="predicted")
    axes.plot(
        sizes, curve["mean_field"], color=canvas.MUTED, linewidth=1.1, linestyle=(0, (4, 3)),
        label="predicted from the spectrum alone",
    )  # fmt: skip
    axes.errorbar(
        sizes, curve["measured"], yerr=2 * np.array(curve["standard_error"]), color=canvas.SERIES[1],
        linestyle="none", marker="o", markersize=4.5, markeredgewidth=0, elinewidth=1.1, capsize=2, label="measured",
        zorder=3,
    )  # fmt: skip
    # The error spans less than two decades: powers of ten alone would leave the axis bare.
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.set_xlabel("training rows n")
    axes.set_ylabel("held-out squared error")
    axes.legend(loc="lower left")
    caption = (
        f"Squared error (summed over outputs) on the other rows after training on n of {rows:,}: the points are"
        f" regression with the {kernel_title(kernel)} on random subsets, with two standard errors; the line is computed"
        f" from the eigenpairs of all these rows and departs from the points by at most"
        f" {percent(curve['largest_deviation'])}. The dashed line knows only"
        " eigenvalues and label power, not which rows are hard to predict."
        f" λ = {quantity(curve['ridge'])}."
    )
    name = f"learning-{identifier(kernel)}"
    return ReportFigure(
        f"Learning curve, {kernel_title(kernel)}",
        canvas.to_svg(figure, name=name, alt=f"Held-out error against training rows. {caption}"),
        caption,
    )


def _training(kernel: str, flow: NDArray[np.floating], metrics: Mapping[str, Any]) -> ReportFigure:
    time, train, test = np.asarray(flow, np.float64)
    largest = float(metrics["lambda_max"])
    steps = time * largest
    figure, axes = canvas.half_logarithmic()
    axes.plot(steps, train, color=canvas.SERIES[0], label="training rows")
    axes.plot(steps, test, color=canvas.SERIES[1], label="held-out rows")
    best = int(np.argmin(test))
    axes.plot(steps[best], test[best], color=canvas.SERIES[1], marker="o", markersize=5)
    # Training error goes to rounding; what matters happens within some decades of the held-out error.
    axes.set_ylim(bottom=max(float(train.min()), 1e-4 * float(test.min())))
    axes.set_xlabel("steps of gradient descent at learning rate 1 / λ₁")
    axes.set_ylabel("squared error")
    axes.legend(loc="lower left")
    when = (
        "It falls to the end: stopping early gains nothing"
        if best == len(test) - 1 or test[best] > 0.99 * test[-1]
        else f"It is least after {quantity(float(steps[best]))} steps ({quantity(float(test[best]))},"
        f" at the end {quantity(float(test[-1]))})"
    )
    dynamics = metrics.get("dynamics", {})
    caption = (
        f"Training by gradient flow from f = 0 on {setting(dynamics.get('rows'))} rows, in closed form: mode k decays"
        f" like e^(−2 λₖ t). {when}; the dot marks the smallest held-out error."
    )
    return ReportFigure(
        f"Errors during training, {kernel_title(kernel)}",
        canvas.to_svg(figure, name=f"training-{identifier(kernel)}", alt=f"Errors against steps. {caption}"),
        caption,
    )
