"""How many eigenvalues lie above a threshold, with the error bars of the random probes."""

from __future__ import annotations

import numpy as np

from pipeline.report import canvas
from pipeline.report.data import ReportData
from pipeline.report.figure import ReportFigure, kernel_title
from pipeline.report.numbers import quantity


def density_figure(data: ReportData) -> ReportFigure | None:
    """All kernels whose spectrum was found as a density in one plot, or None."""
    counts = {
        kernel: metrics["counts"]
        for kernel, metrics in data.metrics.get("spectrum", {}).items()
        if metrics.get("counts")
    }
    if not counts:
        return None
    figure, axes = canvas.half_logarithmic()
    sentences = []
    for position, (kernel, found) in enumerate(counts.items()):
        threshold, larger, half = (np.array(found[key]) for key in ("threshold", "larger", "half_width"))
        # Less than half an eigenvalue is none; a logarithmic axis has no place for it.
        shown = larger > 0.5
        threshold, larger, half = threshold[shown], larger[shown], half[shown]
        colour = canvas.SERIES[position % len(canvas.SERIES)]
        axes.plot(threshold, larger, color=colour, label=kernel_title(kernel))
        axes.fill_between(
            threshold, np.maximum(larger - half, 0.5), larger + half, color=colour, alpha=0.25, linewidth=0
        )
        widest = float(np.max(half / larger))
        sentences.append(
            f"{kernel_title(kernel)}: half width at most {quantity(100 * widest, 2)} % of the count."
        )
    axes.set_xlabel("threshold λ")
    axes.set_ylabel("eigenvalues above λ")
    axes.legend(loc="lower left")
    caption = (
        "Number of eigenvalues above a threshold, by stochastic Lanczos quadrature, with 95 % intervals over the"
        " probes. " + " ".join(sentences)
    )
    svg = canvas.to_svg(figure, name="density", alt=caption)
    return ReportFigure("Spectral density", svg, caption)
